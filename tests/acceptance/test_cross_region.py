"""Copies across regions, between two real services: what arrives, what is refused, and what a failure leaves."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.actors import Actors
from tests.importing import create
from tests.regions import (
    CROWDED,
    DISK,
    HERE,
    THERE,
    Network,
    assert_arrived,
    assert_nothing_there,
    copy,
    crowded,
    image_here,
    images_there,
    region_here,
    region_there,
    started,
)
from tests.service import DEMO_PASSWORD, Client, Service, until

UNKNOWN: Final = "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with region_there(tmp_path_factory.mktemp("there")) as running:
        yield running


@pytest.fixture(scope="module")
def network(there: Service) -> Iterator[Network]:
    network = Network(there.port)
    yield network
    network.close()


@pytest.fixture(scope="module")
def service(there: Service, network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The region that is copied from."""
    with started(region_here(tmp_path_factory.mktemp("here"), there, network, arguments=[])) as running:
        yield running


@pytest.fixture
def rough(network: Network) -> Iterator[Network]:
    """The network, to be made bad."""
    network.heal()
    yield network
    network.heal()


@pytest.fixture
def over_there(there: Service) -> Iterator[Client]:
    with there.demo() as client:
        yield client


@pytest.fixture
def image(demo: Client) -> dict[str, Any]:
    return image_here(demo)


def refused(client: Client, image_id: str, **fields: Any) -> str:
    """Ask for what is refused; the code. No job was made."""
    before = jobs_of(client)
    given = {"name": "a-copy", "region": THERE, "project_name": "demo", "agency_name": "ims_agency", **fields}
    body = {name: value for name, value in given.items() if value is not None}
    answer = client.http.post(f"/v1/cloudimages/{image_id}/cross_region_copy", json=body)
    assert answer.status_code in (400, 404), answer.text
    assert jobs_of(client) == before
    return str(answer.json()["error"]["code"])


def jobs_of(client: Client) -> list[str]:
    return [job["id"] for job in client.http.get("/calotype/v1/jobs?limit=100").json()["jobs"]]


def failed(client: Client, image_id: str, region: str, **fields: Any) -> tuple[dict[str, Any], str]:
    job_id, name = copy(client, image_id, region, **fields)
    job = client.ended(job_id)
    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0014"), job
    assert job["entities"] == {"image_name": name, "error_code": "IMG.0014", "error": job["fail_reason"]}
    return job, name


def test_an_image_arrives_with_its_bytes_and_what_is_said_of_it(demo: Client, over_there: Client) -> None:
    said = {
        "min_disk": 3,
        "min_ram": 256,
        "tags": ["team=blue", "golden"],
        "__os_version": "Ubuntu 22.04 server 64bit",
        "hw_firmware_type": "uefi",
        "__description": "of the source",
        "kernel_id": UNKNOWN,
        "colour": "red",
    }
    source = image_here(demo, **said)

    job_id, name = copy(demo, source["id"], THERE, project_name="demo", description="travelled")
    arrived = assert_arrived(over_there, demo.ended(job_id), name, source)

    same = ("min_disk", "min_ram", "__os_version", "__os_type", "__platform", "__os_bit", "hw_firmware_type", "colour")
    assert {key: arrived[key] for key in same} == {key: source[key] for key in same}
    assert sorted(arrived["tags"]) == sorted(source["tags"])
    assert (arrived["__description"], arrived["visibility"]) == ("travelled", "private")
    assert "kernel_id" not in arrived
    assert arrived["id"] != source["id"]


def test_the_job_tells_how_many_bytes_went(demo: Client, over_there: Client, image: dict[str, Any]) -> None:
    job_id, name = copy(demo, image["id"], THERE, project_name="demo")
    assert_arrived(over_there, demo.ended(job_id), name, image)

    told = demo.http.get(f"/calotype/v1/jobs/{job_id}").json()

    assert [step["name"] for step in told["steps"]] == ["create", "transfer", "verify", "publish"]
    assert told["steps"][1]["progress"]["done_bytes"] == told["steps"][1]["progress"]["total_bytes"] == image["size"]
    assert told["request"]["region"] == THERE


def test_a_region_is_logged_in_to_with_an_access_key(demo: Client, over_there: Client, image: dict[str, Any]) -> None:
    job_id, name = copy(demo, image["id"], "keyed")

    assert_arrived(over_there, demo.ended(job_id), name, image)


def test_an_image_of_another_project_can_be_copied_by_who_may_see_it(
    admin: Client, demo: Client, over_there: Client
) -> None:
    image = image_here(demo, visibility="community")

    job_id, name = copy(admin, image["id"], THERE, project_name="demo")

    assert_arrived(over_there, admin.ended(job_id), name, image)


def test_an_image_that_was_offered_is_copied_once_it_is_accepted(
    service: Service, admin: Client, over_there: Client
) -> None:
    with contextlib.ExitStack() as opened:
        actors = Actors(service, admin)
        for client in actors.clients.values():
            if client is not admin:
                opened.enter_context(client)
        image = actors.shared_image(image_here)
        accepted = actors.clients["accepted"]

        for actor in ("pending", "rejected"):
            assert refused(actors.clients[actor], image["id"]) == "IMG.0196"
        job_id, name = copy(accepted, image["id"], THERE, project_name="demo")

        assert_arrived(over_there, accepted.ended(job_id), name, image)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": None}, "IMG.0013"),
        ({"name": "n" * 129}, "IMG.0002"),
        ({"description": "<b>"}, "IMG.0054"),
        ({"region": None}, "IMG.0001"),
        ({"region": 7}, "IMG.0001"),
        ({"region": "nowhere"}, "IMG.0001"),
        ({"region": HERE}, "IMG.0001"),
        ({"project_name": None}, "IMG.0104"),
        ({"project_name": "admin"}, "IMG.0145"),
        ({"agency_name": None}, "IMG.0179"),
        ({"agency_name": "another"}, "IMG.0179"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{k}={str(v)[:8]}" for k, v in value.items()),
)
def test_a_wrong_field_is_refused(demo: Client, image: dict[str, Any], fields: dict[str, Any], code: str) -> None:
    assert refused(demo, image["id"], **fields) == code


def test_an_image_that_cannot_be_copied_is_refused(demo: Client) -> None:
    queued = create(demo)
    iso = create(demo, disk_format="iso")
    content = bytearray(64 * 2048)
    content[16 * 2048 : 16 * 2048 + 6] = b"\x01CD001"
    content[17 * 2048 : 17 * 2048 + 6] = b"\xffCD001"
    sent = demo.http.put(iso["file"], content=bytes(content), headers={"Content-Type": "application/octet-stream"})
    assert sent.status_code == 204, sent.text
    large = create(demo)
    demo.http.put(large["file"], content=DISK * 5, headers={"Content-Type": "application/octet-stream"})

    assert refused(demo, queued["id"]) == "IMG.0046"
    assert refused(demo, iso["id"]) == "IMG.0167"
    assert refused(demo, large["id"]) == "IMG.0059"
    assert refused(demo, UNKNOWN) == "IMG.0144"
    assert refused(demo, "no-uuid") == "IMG.0144"


def test_a_foreign_image_is_unknown(demo: Client, admin: Client) -> None:
    foreign = create(admin, visibility="private")

    assert refused(demo, foreign["id"]) == "IMG.0144"


def test_a_wrong_password_of_the_settings_fails_the_job_and_is_told_to_nobody(
    service: Service, demo: Client, over_there: Client, image: dict[str, Any]
) -> None:
    job, name = failed(demo, image["id"], "locked")

    assert "does not take the login" in job["fail_reason"]
    assert "not the password" not in service.log.read_text() + str(job)
    assert DEMO_PASSWORD not in service.log.read_text()
    assert_nothing_there(over_there, name)


def test_a_region_that_is_down_fails_the_job_after_the_time_that_is_set(demo: Client, image: dict[str, Any]) -> None:
    job, _ = failed(demo, image["id"], "down")

    assert "cannot be reached; tried again for 2 seconds" in job["fail_reason"]
    assert "could not be removed" not in job["fail_reason"]


def test_a_full_quota_there_fails_the_job_in_the_words_of_the_other_side(
    there: Service, demo: Client, image: dict[str, Any]
) -> None:
    job, name = failed(demo, image["id"], THERE, project_name=CROWDED)

    assert "413" in job["fail_reason"]
    with crowded(there) as client:
        assert images_there(client, name) == []


@pytest.mark.parametrize("hides_digests", [False, True], ids=["digests-go-along", "digests-are-lost"])
def test_bytes_that_change_on_the_way_fail_the_job_and_nothing_of_them_stays(
    demo: Client, over_there: Client, rough: Network, image: dict[str, Any], hides_digests: bool
) -> None:
    rough.corrupts, rough.hides_digests = True, hides_digests

    job, name = failed(demo, image["id"], "rough")

    assert "differs" in job["fail_reason"]
    assert_nothing_there(over_there, name)


def test_a_transfer_that_is_cut_begins_again_and_one_image_is_there(
    demo: Client, over_there: Client, rough: Network, image: dict[str, Any]
) -> None:
    rough.cuts = 2

    job_id, name = copy(demo, image["id"], "rough")

    assert_arrived(over_there, demo.ended(job_id), name, image)
    assert rough.uploads == 3


def test_a_transfer_that_is_always_cut_fails_and_leaves_nothing(
    demo: Client, over_there: Client, rough: Network, image: dict[str, Any]
) -> None:
    rough.cuts = 1000

    job, name = failed(demo, image["id"], "rough")

    assert "were sent 5 times" in job["fail_reason"]
    assert_nothing_there(over_there, name)


def test_the_source_may_be_deleted_while_its_bytes_are_on_the_way(
    demo: Client, over_there: Client, rough: Network, image: dict[str, Any]
) -> None:
    rough.cuts, rough.holds = 1, True

    job_id, name = copy(demo, image["id"], "rough")
    assert rough.held.wait(timeout=60)
    deleted = demo.http.delete(f"/v2/images/{image['id']}")
    rough.release()

    assert deleted.status_code == 204
    assert_arrived(over_there, demo.ended(job_id), name, image)


def test_a_copy_that_is_cancelled_leaves_nothing(
    demo: Client, over_there: Client, rough: Network, image: dict[str, Any]
) -> None:
    rough.holds = True
    job_id, name = copy(demo, image["id"], "rough")
    assert rough.held.wait(timeout=60)

    assert demo.http.post(f"/calotype/v1/jobs/{job_id}:cancel").status_code == 202

    job = demo.ended(job_id)
    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0061")
    assert_nothing_there(over_there, name)


def test_what_could_not_be_removed_is_told(
    demo: Client, over_there: Client, rough: Network, image: dict[str, Any]
) -> None:
    rough.goes_away = True

    job, name = failed(demo, image["id"], "rough")

    (left,) = images_there(over_there, name)
    assert f"image {left['id']} may be left" in job["fail_reason"]
    assert (left["status"], left["os_hidden"]) == ("queued", True)
    over_there.http.delete(f"/v2/images/{left['id']}")


def test_five_copies_are_under_way_at_once_and_no_sixth(
    demo: Client, over_there: Client, rough: Network, image: dict[str, Any]
) -> None:
    rough.holds = True
    asked = [copy(demo, image["id"], "rough") for _ in range(5)]

    assert refused(demo, image["id"]) == "IMG.0060"

    rough.release()
    for job_id, name in asked:
        assert_arrived(over_there, demo.ended(job_id), name, image)
    assert until(lambda: not list((demo.service.data_dir / "scratch").iterdir()), "no scratch folder")
