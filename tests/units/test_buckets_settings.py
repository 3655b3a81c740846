"""Folders that the settings map as buckets: a wrong one stops the start, by its name."""

from pathlib import Path

import pytest

from calotype.settings import BucketMapping, Settings, WrongSetting, load, shown


def loaded(tmp_path: Path, name: str, folder: str) -> dict[str, BucketMapping]:
    (tmp_path / "data").mkdir()
    file = tmp_path / "calotype.toml"
    file.write_text(f'[buckets."{name}"]\nfolder = "{folder}"\n')
    return load({"CALOTYPE_CONFIG": str(file)}, data_dir=str(tmp_path / "data")).buckets


def test_a_folder_apart_from_the_data_is_mapped_read_only_for_all(tmp_path: Path) -> None:
    folder = str(tmp_path / "elsewhere")

    assert loaded(tmp_path, "shared", folder) == {"shared": BucketMapping(folder=folder, project="", read_only=True)}


@pytest.mark.parametrize("name", ["Shared", "ab", "a/b", "..", "", "-ab"])
def test_a_name_that_no_bucket_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WrongSetting, match=rf"^buckets\.{name}: wants a name"):
        loaded(tmp_path, name, "/srv")


@pytest.mark.parametrize("folder", ["", "relative", "./here", "~/images"])
def test_a_folder_is_an_absolute_path(tmp_path: Path, folder: str) -> None:
    with pytest.raises(WrongSetting, match=r"^buckets\.shared\.folder: wants an absolute path"):
        loaded(tmp_path, "shared", folder)


@pytest.mark.parametrize("below", ["data", "data/blobs", "data/../data/blobs", ".", ".."])
def test_the_folder_of_the_service_itself_is_not_mapped(tmp_path: Path, below: str) -> None:
    with pytest.raises(WrongSetting, match=r"^buckets\.shared\.folder: wants a folder apart"):
        loaded(tmp_path, "shared", f"{tmp_path}/{below}")


def test_nor_is_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")

    with pytest.raises(WrongSetting, match="wants a folder apart"):
        loaded(tmp_path, "shared", str(tmp_path / "link"))


# --- on an S3 server --------------------------------------------------------------------------------------------------

KEYS = 'access_key = "AKIAX"\nsecret_key = "canary-secret"\n'


def with_s3(tmp_path: Path, lines: str) -> Settings:
    file = tmp_path / "calotype.toml"
    file.write_text(f"[buckets.cloud]\n{lines}")
    return load({"CALOTYPE_CONFIG": str(file)}, data_dir=str(tmp_path / "data"))


def test_a_place_on_an_s3_server_is_a_bucket_and_its_secret_is_never_shown(tmp_path: Path) -> None:
    settings = with_s3(tmp_path, f's3 = "https://s3.example.test:8443/images/some/where"\n{KEYS}')

    assert settings.buckets["cloud"].read_only
    assert shown(settings)["buckets"]["cloud"]["secret_key"] == "********"
    assert "canary-secret" not in repr(settings) + str(shown(settings))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (f's3 = "https://s3.example.test/images"\nfolder = "/srv"\n{KEYS}', r"buckets\.cloud: wants folder or s3"),
        (f's3 = "https://s3.example.test"\n{KEYS}', "buckets"),
        (f's3 = "ftp://s3.example.test/images"\n{KEYS}', "buckets"),
        (f's3 = "https://user:word@s3.example.test/images"\n{KEYS}', "buckets"),
        (f's3 = "https://s3.example.test:99999/images"\n{KEYS}', r"buckets\.cloud\.s3: wants http"),
        ('s3 = "https://s3.example.test/images"\n', r"buckets\.cloud: wants access_key and secret_key"),
        (
            's3 = "https://s3.example.test/images"\naccess_key = "A"\n',
            r"buckets\.cloud: wants access_key and secret_key",
        ),
        (
            f's3 = "https://s3.example.test/images"\n{KEYS}credentials_file = "/etc/keys"\n',
            r"buckets\.cloud: wants access_key and secret_key, or",
        ),
        (
            's3 = "https://s3.example.test/images"\ncredentials_file = "keys"\n',
            r"buckets\.cloud\.credentials_file: wants an absolute path",
        ),
        (f'folder = "/srv"\n{KEYS}', r"buckets\.cloud: access_key, .* are for a bucket with s3"),
        ("read_only = true\n", r"buckets\.cloud\.folder: wants an absolute path"),
    ],
    ids=range(11),
)
def test_a_place_that_makes_no_sense_stops_the_start_and_no_secret_is_told(
    tmp_path: Path, lines: str, told: str
) -> None:
    with pytest.raises(WrongSetting, match=told) as raised:
        with_s3(tmp_path, lines)

    assert "canary-secret" not in str(raised.value)
    assert "word" not in str(raised.value).replace("password", "")
