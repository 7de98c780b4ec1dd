"""Worker Jobs over a recorded API: whose are listed, and which one is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from searchops.adapters.kube_jobs import KubeJobs
from searchops.api.observed import OwnedJob
from searchops.runtime.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.adapters.kube_api import KubeApi

PATH = "/apis/batch/v1/namespaces/system/jobs"


class RecordedApi:
    """An API server that keeps what it was asked."""

    def __init__(self, error: Exception | None = None, listed: list[dict[str, Any]] | None = None) -> None:
        self.error = error
        self.listed = listed
        self.asked: list[Any] = []

    async def list(self, path: str, *, label_selector: str = "") -> list[dict[str, Any]]:
        self.asked.append((path, label_selector))
        if self.listed is not None:
            return self.listed
        labels = {"searchops.dev/owner-uid": "uid-1", "searchops.dev/task": "build"}
        return [{"metadata": {"name": "build-1", "uid": "uid-j", "labels": labels}, "status": {"active": 1}}]

    async def delete(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        self.asked.append((path, body))
        if self.error is not None:
            raise self.error


def jobs_over(api: RecordedApi) -> KubeJobs:
    return KubeJobs(cast("KubeApi", api), "system", template=lambda _: None)


async def test_the_jobs_of_an_owner_are_listed_by_its_uid() -> None:
    api = RecordedApi()
    (state,) = await jobs_over(api).owned("uid-1")
    assert (state.name, state.uid, state.owner_uid, state.kind, state.active) == (
        "build-1",
        "uid-j",
        "uid-1",
        "build",
        1,
    )
    assert api.asked == [(PATH, "searchops.dev/owner-uid=uid-1")]


async def test_every_job_with_an_owner_is_listed_with_whom_it_names_and_none_that_goes_already() -> None:
    labels = {"searchops.dev/owner-kind": "ReindexJob", "searchops.dev/owner-uid": "uid-rj"}
    annotations = {"searchops.dev/owner-namespace": "shops", "searchops.dev/owner-name": "acme-1"}
    there = {"name": "reindex-1", "uid": "uid-j", "labels": labels, "annotations": annotations}
    goes = {**there, "name": "reindex-2", "deletionTimestamp": "2026-11-24T12:00:00Z"}
    api = RecordedApi(listed=[{"metadata": there}, {"metadata": goes}, {"metadata": {"name": "bare", "uid": "u"}}])
    assert await jobs_over(api).all_owned() == (
        OwnedJob("reindex-1", "uid-j", "ReindexJob", "uid-rj", "shops", "acme-1"),
        OwnedJob("bare", "u", "", "", "", ""),
    )
    assert api.asked == [(PATH, "searchops.dev/owner-uid")]


async def test_a_job_is_stopped_by_its_uid_and_stays_until_its_pods_are_gone() -> None:
    api = RecordedApi()
    await jobs_over(api).stop("build-1", "uid-j")
    wanted = {"propagationPolicy": "Foreground", "preconditions": {"uid": "uid-j"}}
    assert api.asked == [(f"{PATH}/build-1", wanted)]


async def test_a_job_that_is_another_one_by_now_is_left_alone() -> None:
    api = RecordedApi(Conflict("the UID in the precondition does not match"))
    await jobs_over(api).stop("build-1", "uid-j")
    assert len(api.asked) == 1
