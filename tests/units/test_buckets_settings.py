"""Folders that the settings map as buckets: a wrong one stops the start, by its name."""

from pathlib import Path

import pytest

from calotype.settings import BucketMapping, WrongSetting, load


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
