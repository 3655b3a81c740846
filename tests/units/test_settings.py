from pathlib import Path

import pytest

from calotype.identity.catalog import catalog, regions
from calotype.settings import WrongSetting, load, shown, variables


def test_the_defaults_are_an_embedded_service_on_the_local_machine() -> None:
    settings = load({})

    assert settings.database == ""
    assert settings.url == "http://127.0.0.1:9292"
    assert settings.region == "RegionOne"


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    file = tmp_path / "calotype.toml"
    file.write_text('region = "file"\n[http]\nport = 1111\nhost = "10.0.0.1"\n')

    environment = {"CALOTYPE_CONFIG": str(file), "CALOTYPE_HTTP_PORT": "2222", "CALOTYPE_REGION": "environment"}
    settings = load(environment, http={"port": 3333, "host": None})

    assert (settings.http.host, settings.http.port, settings.region) == ("10.0.0.1", 3333, "environment")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"CALOTYPE_HTTP_PROT": "1"}, "CALOTYPE_HTTP_PROT: no such setting"),
        ({"CALOTYPE_HTTP_PORT": "99999"}, "CALOTYPE_HTTP_PORT: expected `int` <= 65535"),
        ({"CALOTYPE_HTTP_PORT": "ninety"}, "CALOTYPE_HTTP_PORT: expected `int`"),
        ({"CALOTYPE_SECURITY_SANDBOX": "off"}, "CALOTYPE_SECURITY_SANDBOX: invalid enum value 'off'"),
        ({"CALOTYPE_DATABASE": "mysql://x"}, "database: wants a URL that begins with postgresql://"),
        ({"CALOTYPE_CONFIG": "/nowhere/calotype.toml"}, "CALOTYPE_CONFIG: cannot read"),
        ({"CALOTYPE_JOBS_DEAD_AFTER_S": "6"}, "jobs.dead_after_s: wants at least twice"),
        ({"CALOTYPE_SERVERS_INVENTORY": "servers"}, "servers.inventory: wants an absolute path"),
        ({"CALOTYPE_SERVERS_LIBVIRT_EXCHANGE": "x"}, "servers.libvirt_exchange: wants an absolute path"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name_and_with_what_is_allowed(
    environment: dict[str, str], says: str
) -> None:
    with pytest.raises(WrongSetting) as refused:
        load(environment)

    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[http]\nprot = 1\n", "http.prot: no such setting"),
        ("colour = 1\n", "colour: no such setting"),
        ("[http]\nport = 0\n", "http.port: expected `int` >= 1"),
        ("[http\n", "not a TOML file"),
        ('[buckets.b]\nfolder = "/x"\nread_olny = true\n', "read_olny: no such setting"),
    ],
)
def test_a_wrong_line_of_the_file_is_refused_by_its_name(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "calotype.toml"
    file.write_text(text)

    with pytest.raises(WrongSetting) as refused:
        load({"CALOTYPE_CONFIG": str(file)})

    assert says in str(refused.value)


NODE = '[endpoints.b]\ntype = "image_remote"\nurl = "http://b.example.test:9292"\n'


def test_the_file_adds_endpoints_to_the_catalog(tmp_path: Path) -> None:
    file = tmp_path / "calotype.toml"
    file.write_text(
        NODE
        + '[endpoints.far]\ntype = "image"\nurl = "https://far.example.test/"\nregion = "Far"\ninterface = "public"\n'
    )

    services = {service.type: service for service in catalog(load({"CALOTYPE_CONFIG": str(file)}))}

    def told(kind: str) -> list[tuple[str, str, str]]:
        return [(endpoint.region, endpoint.interface, endpoint.url) for endpoint in services[kind].endpoints]

    everywhere = ("public", "internal", "admin")
    assert [*services] == ["identity", "image", "ims", "image_remote"]
    assert told("image_remote") == [("RegionOne", interface, "http://b.example.test:9292") for interface in everywhere]
    assert told("image") == [
        *(("RegionOne", interface, "http://127.0.0.1:9292") for interface in everywhere),
        ("Far", "public", "https://far.example.test"),
    ]
    ids = [endpoint.id for service in services.values() for endpoint in service.endpoints]
    assert len(ids) == len({*ids}) == 13
    assert regions(load({"CALOTYPE_CONFIG": str(file)})) == ["RegionOne", "Far"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            NODE.replace("image_remote", "image"),
            "endpoints.b: the public endpoint of type image in region RegionOne is",
        ),
        (NODE + NODE.replace("endpoints.b", "endpoints.c"), "endpoints.c: the public endpoint of type image_remote"),
        (NODE.replace("http://b.example.test:9292", "file:///etc/passwd"), "url: expected `str` matching regex"),
        (NODE.replace("[endpoints.b]", '[endpoints."B!"]'), "endpoints.B!: wants a name of 1 to 63"),
        (NODE + "interface = 1\n", "interface: expected `str`"),
        ('[endpoints.b]\ntype = "image_remote"\n', "object missing required field `url`"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "calotype.toml"
    file.write_text(text)

    with pytest.raises(WrongSetting) as refused:
        load({"CALOTYPE_CONFIG": str(file)})

    assert says in str(refused.value)


def test_secrets_are_shown_as_stars() -> None:
    settings = load({"CALOTYPE_DATABASE": "postgresql://calotype:hunter2@db/calotype"})

    assert "hunter2" not in str(shown(settings))
    assert shown(settings)["database"] == "********"


def test_every_setting_has_a_variable_of_its_own() -> None:
    names = list(variables().values())

    assert len(names) == len(set(names)) > 20
    assert variables()["CALOTYPE_JOBS_CREATIONS_PER_PROJECT"] == "jobs.creations_per_project"


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("[imagev2]\ndecompress_ratio = 7\n", {}),
        ("", {"CALOTYPE_IMAGEV2_DECOMPRESS_RATIO": "7"}),
        ("[imports]\ndecompress_ratio = 7\n[imagev2]\ndecompress_ratio = 8\n", {}),
        ("", {"CALOTYPE_IMPORTS_DECOMPRESS_RATIO": "7", "CALOTYPE_IMAGEV2_DECOMPRESS_RATIO": "8"}),
        ("[imagev2]\ndecompress_ratio = 8\n", {"CALOTYPE_IMPORTS_DECOMPRESS_RATIO": "7"}),
    ],
    ids=["file", "variable", "both in the file", "both variables", "variable over file"],
)
def test_a_setting_is_known_by_its_old_name_and_the_present_one_wins(
    tmp_path: Path, text: str, environment: dict[str, str]
) -> None:
    file = tmp_path / "calotype.toml"
    file.write_text(text)

    settings = load({"CALOTYPE_CONFIG": str(file), **environment})

    assert settings.imports.decompress_ratio == 7
