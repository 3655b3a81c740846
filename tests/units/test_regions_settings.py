"""`[regions.NAME]`: what is taken, what is refused, and that nothing tells its secrets."""

import json
from pathlib import Path
from typing import Final

import pytest

from calotype.errors import AgencyRefused, CalotypeError, MissingProjectName, UnknownRegion, WrongProjectName
from calotype.regions.client import Regions
from calotype.regions.destination import Destination, destination
from calotype.settings import RegionSettings, Settings, WrongSetting, load, shown

LOGIN: Final = 'user = "mover"\npassword = "hush-hush"\n'
WEST: Final = f'[regions.west]\nurl = "https://west.example.test"\nprojects = ["landing"]\n{LOGIN}'


def loaded(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "calotype.toml"
    file.write_text(text)
    return load({"CALOTYPE_CONFIG": str(file)})


def test_a_region_needs_its_url_a_project_and_a_login(tmp_path: Path) -> None:
    west = loaded(tmp_path, WEST).regions["west"]

    assert (west.url, west.projects, west.agencies) == ("https://west.example.test", ("landing",), ())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (WEST.replace(LOGIN, ""), "regions.west: wants user and password, or access_key and secret_key"),
        (WEST.replace('user = "mover"\n', ""), "regions.west: wants user and password"),
        (WEST + 'access_key = "A"\nsecret_key = "S"\n', "regions.west: wants user and password"),
        (WEST + 'access_key = "A"\n', "regions.west: wants user and password"),
        (WEST.replace('["landing"]', "[]"), "regions.west.projects: wants one name or several"),
        (WEST.replace('["landing"]', '["a", "a"]'), "regions.west.projects: wants one name or several"),
        (WEST.replace("regions.west", "regions.RegionOne"), "regions.RegionOne: is the region of this service"),
        (WEST.replace("regions.west", 'regions."w/est"'), "regions.w/est: wants a name of 1 to 64"),
        (WEST.replace("https:", "ftp:"), "url"),
        (WEST.replace("west.example", "mover:hush@west.example"), "url"),
        (WEST + 'ca_file = "ca.pem"\n', "regions.west.ca_file: wants an absolute path"),
        (WEST + "timeout_s = 0\n", "timeout_s"),
        (WEST + 'pasword = "x"\n', "pasword: no such setting"),
    ],
    ids=range(13),
)
def test_a_wrong_region_stops_the_start_with_its_name(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(WrongSetting) as refused:
        loaded(tmp_path, text)

    assert says in str(refused.value)
    assert "hush" not in str(refused.value)


def test_the_secrets_of_a_region_are_shown_as_stars(tmp_path: Path) -> None:
    keyed = WEST.replace("west", "keyed").replace(LOGIN, 'access_key = "AK"\nsecret_key = "hush-hush"\n')
    settings = loaded(tmp_path, WEST + keyed)

    told = shown(settings)["regions"]

    assert told["west"]["password"] == told["keyed"]["secret_key"] == "********"
    assert told["west"]["secret_key"] == ""
    assert "hush" not in json.dumps(shown(settings)) + repr(settings) + repr(settings.regions["west"])


def test_certificates_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    no_certificates = tmp_path / "ca.pem"
    no_certificates.write_text("nothing")

    for path in (no_certificates, tmp_path / "missing.pem"):
        with pytest.raises(WrongSetting, match=r"regions\.west\.ca_file"):
            Regions(loaded(tmp_path, f'{WEST}ca_file = "{path}"\n'))


# --- what a request names ---------------------------------------------------------------------------------------------


def region(*projects: str, agencies: tuple[str, ...] = ()) -> RegionSettings:
    return RegionSettings(url="https://x.example.test", projects=projects, agencies=agencies)


REGIONS: Final = {"west": region("a"), "north": region("a", "b", agencies=("movers",))}


@pytest.mark.parametrize(
    ("name", "project", "agency", "found"),
    [
        ("west", None, "any", ("west", "a")),
        ("west", "a", "any", ("west", "a")),
        ("north", "b", "movers", ("north", "b")),
    ],
)
def test_a_request_names_where_a_copy_goes(name: str, project: str | None, agency: str, found: tuple[str, str]) -> None:
    where = destination(REGIONS, own="east", region=name, project=project, agency=agency)

    assert where == Destination(region=found[0], project=found[1])


@pytest.mark.parametrize(
    ("name", "project", "agency", "error", "code"),
    [
        (None, "a", "movers", UnknownRegion, "IMG.0001"),
        ("east", "a", "movers", UnknownRegion, "IMG.0001"),
        ("south", "a", "movers", UnknownRegion, "IMG.0001"),
        ("north", None, "movers", MissingProjectName, "IMG.0104"),
        ("north", "c", "movers", WrongProjectName, "IMG.0145"),
        ("west", "b", "movers", WrongProjectName, "IMG.0145"),
        ("north", "a", None, AgencyRefused, "IMG.0179"),
        ("north", "a", "others", AgencyRefused, "IMG.0179"),
        ("west", "a", None, AgencyRefused, "IMG.0179"),
    ],
)
def test_what_a_request_names_wrongly_has_its_code(
    name: str | None, project: str | None, agency: str | None, error: type[CalotypeError], code: str
) -> None:
    with pytest.raises(error) as refused:
        destination(REGIONS, own="east", region=name, project=project, agency=agency)

    assert refused.value.img == code
