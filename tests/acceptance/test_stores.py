"""Several stores: which there are, where an upload goes, and what taking an image out of one does."""

import uuid
from pathlib import Path

import pytest

from tests.service import Client, Service, until

CONTENT = b"bytes of a disk\n" * 4096
OCTETS = {"Content-Type": "application/octet-stream"}


def created(client: Client, **attributes: object) -> str:
    body = {"name": "disk", "disk_format": "raw", "container_format": "bare", **attributes}
    answer = client.http.post("/v2/images", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def uploaded(client: Client, *, store: str | None = None, content: bytes = CONTENT) -> str:
    image_id = created(client)
    headers = OCTETS | ({"X-Image-Meta-Store": store} if store else {})
    answer = client.http.put(f"/v2/images/{image_id}/file", content=content, headers=headers)
    assert answer.status_code == 204, answer.text
    return image_id


def in_both(client: Client, admin: Client) -> str:
    """An image that the stores local and other hold."""
    image_id = uploaded(client, content=uuid.uuid4().bytes * 4096)
    body = {"method": {"name": "copy-image"}, "all_stores": True}
    assert admin.http.post(f"/v2/images/{image_id}/import", json=body).status_code == 202
    until(lambda: client.image(image_id)["stores"] == "local,other", "the copy to be made")
    return image_id


def files_of(several: Service, store: str) -> set[Path]:
    folder = several.data_dir / "blobs" if store == "local" else several.data_dir.parent / "other-store"
    return {path for path in folder.rglob("*") if path.is_file()}


def test_the_stores_are_listed_with_the_heaviest_first(owner: Client) -> None:
    assert owner.http.get("/v2/info/stores").json() == {
        "stores": [
            {"id": "local", "weight": 20, "default": "true"},
            {"id": "other", "weight": 10, "description": "another folder"},
            {"id": "web", "weight": 0, "read-only": "true"},
        ]
    }


def test_only_an_admin_is_told_where_files_are(several: Service, owner: Client, operator: Client) -> None:
    details = operator.http.get("/v2/info/stores/detail").json()["stores"]

    assert [store["type"] for store in details] == ["file", "file", "http"]
    assert details[0]["properties"]["data_dir"] == str(several.data_dir / "blobs")
    assert owner.http.get("/v2/info/stores/detail").status_code == 403


def test_a_new_image_is_told_the_stores(owner: Client) -> None:
    answer = owner.http.post("/v2/images", json={"name": "disk"})

    assert answer.headers["OpenStack-image-store-ids"] == "local,other,web"


@pytest.mark.parametrize("store", ["local", "other"])
def test_an_upload_goes_to_the_store_that_was_asked_for(several: Service, owner: Client, store: str) -> None:
    before = files_of(several, store)

    image_id = uploaded(owner, store=store)

    assert owner.image(image_id)["stores"] == store
    assert len(files_of(several, store) - before) == 1 or store == "local"
    assert owner.http.get(f"/v2/images/{image_id}/file").content == CONTENT


@pytest.mark.parametrize("store", ["web", "none", "../local"])
def test_an_upload_to_a_store_that_cannot_be_written_is_refused(owner: Client, store: str) -> None:
    image_id = created(owner)

    answer = owner.http.put(
        f"/v2/images/{image_id}/file", content=CONTENT, headers=OCTETS | {"X-Image-Meta-Store": store}
    )

    assert answer.status_code == 400
    assert owner.image(image_id)["status"] == "queued"


def test_a_queued_image_is_in_no_store(owner: Client) -> None:
    assert "stores" not in owner.image(created(owner))


def test_with_one_store_none_is_told(demo: Client) -> None:
    assert "stores" not in demo.image(uploaded(demo))


def test_an_image_is_taken_out_of_one_store_and_read_from_the_other(
    several: Service, owner: Client, operator: Client
) -> None:
    image_id = in_both(owner, operator)
    before = files_of(several, "local")
    content = owner.http.get(f"/v2/images/{image_id}/file").content

    answer = operator.http.delete(f"/v2/stores/local/{image_id}")

    assert answer.status_code == 204
    assert owner.image(image_id)["stores"] == "other"
    assert len(before - files_of(several, "local")) == 1
    assert owner.http.get(f"/v2/images/{image_id}/file").content == content


def test_the_last_copy_stays(owner: Client, operator: Client) -> None:
    image_id = uploaded(owner)

    assert operator.http.delete(f"/v2/stores/local/{image_id}").status_code == 403
    assert owner.http.get(f"/v2/images/{image_id}/file").content == CONTENT


def test_bytes_that_another_image_counts_on_stay(several: Service, owner: Client, operator: Client) -> None:
    image_id = in_both(owner, operator)
    content = owner.http.get(f"/v2/images/{image_id}/file").content
    twin = uploaded(owner, content=content)  # joined with the blob in local

    assert operator.http.delete(f"/v2/stores/local/{image_id}").status_code == 204

    assert owner.image(twin)["stores"] == "local"
    assert owner.http.get(f"/v2/images/{twin}/file").content == content


def test_equal_bytes_are_not_joined_with_a_copy_that_is_gone(several: Service, owner: Client, operator: Client) -> None:
    image_id = in_both(owner, operator)
    content = owner.http.get(f"/v2/images/{image_id}/file").content
    assert operator.http.delete(f"/v2/stores/local/{image_id}").status_code == 204

    twin = uploaded(owner, content=content)

    assert operator.http.delete(f"/v2/images/{image_id}").status_code == 204
    assert owner.image(twin)["stores"] == "local"
    assert owner.http.get(f"/v2/images/{twin}/file").content == content


def test_a_store_that_is_unknown_here_is_a_conflict_and_an_unknown_image_is_not_found(operator: Client) -> None:
    assert operator.http.delete(f"/v2/stores/none/{uuid.uuid4()}").status_code == 409
    assert operator.http.delete(f"/v2/stores/local/{uuid.uuid4()}").status_code == 404
    assert operator.http.delete("/v2/stores/local/no-image").status_code == 404


def test_an_image_that_is_not_in_the_store_is_not_found(owner: Client, operator: Client) -> None:
    image_id = in_both(owner, operator)

    assert operator.http.delete(f"/v2/stores/web/{image_id}").status_code == 404


def test_data_of_an_image_without_data_cannot_be_removed(owner: Client, operator: Client) -> None:
    assert operator.http.delete(f"/v2/stores/local/{created(owner)}").status_code == 409


def test_an_owner_may_not_take_an_image_out_of_a_store(owner: Client, operator: Client) -> None:
    image_id = in_both(owner, operator)

    assert owner.http.delete(f"/v2/stores/local/{image_id}").status_code == 403


def test_deleting_an_image_removes_every_copy(several: Service, owner: Client, operator: Client) -> None:
    before = files_of(several, "local") | files_of(several, "other")
    image_id = in_both(owner, operator)

    assert owner.http.delete(f"/v2/images/{image_id}").status_code == 204

    assert files_of(several, "local") | files_of(several, "other") <= before
