from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from searchops_workers.encoders.settings import EncoderSettings
from searchops_workers.engines.repository import (
    EngineFiles,
    model_names,
    publish,
    published_digest,
    read_wanted,
    remove,
    staging_folder,
)
from searchops_workers.engines.stages import BuildError, BuildStage
from searchops_workers.engines.triton_config import ServedRevision

SETTINGS = EncoderSettings(dimension=4, max_tokens=16, buckets=(8, 16), max_batch=4)
NAME = "shop-r1-aaaaaaaa"


@pytest.fixture
def files(tmp_path: Path) -> EngineFiles:
    folder = tmp_path / "built"
    folder.mkdir()
    for name in ("manifest.json", "tokenizer.json", "model.onnx"):
        (folder / name).write_text(name * 1000)
    return EngineFiles(folder / "manifest.json", folder / "tokenizer.json", folder / "model.onnx")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "pool" / "repository"


def _served(**changes: object) -> ServedRevision:
    values: dict[str, object] = {
        "revision": NAME,
        "manifest_digest": "sha256:1",
        "settings": SETTINGS,
        "backend": "python",
    }
    return ServedRevision(**{**values, **changes})  # type: ignore[arg-type]


def test_three_models_appear_and_nothing_else_in_the_repository(repository: Path, files: EngineFiles) -> None:
    assert publish(repository, _served(), files) == (f"{NAME}-enc", f"{NAME}-tok", NAME)
    assert {path.name for path in repository.iterdir()} == set(model_names(NAME))
    assert read_wanted(repository) == (NAME,)
    left = [path for path in staging_folder(repository).iterdir() if not path.name.endswith(".lock")]
    assert left == []


def test_publishing_again_changes_nothing(repository: Path, files: EngineFiles) -> None:
    publish(repository, _served(), files)
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    cache = repository / NAME / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"what Python adds")
    assert publish(repository, _served(), files) == ()
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items() if path != cache.parent)


@pytest.mark.parametrize("change", [{"manifest_digest": "sha256:2"}, {"backend": "onnxruntime"}])
def test_another_revision_under_the_same_name_is_never_overwritten(
    repository: Path, files: EngineFiles, change: dict[str, object]
) -> None:
    publish(repository, _served(), files)
    before = {name: published_digest(repository / name) for name in model_names(NAME)}
    with pytest.raises(BuildError, match=r"exists with other content .* and is not overwritten") as caught:
        publish(repository, _served(**change), files)
    assert caught.value.stage is BuildStage.PUBLISH
    assert {name: published_digest(repository / name) for name in model_names(NAME)} == before


def test_a_conflict_is_found_before_anything_is_published(repository: Path, files: EngineFiles) -> None:
    (repository / NAME).mkdir(parents=True)
    (repository / NAME / "config.pbtxt").write_text("someone else's")
    with pytest.raises(BuildError, match="not overwritten"):
        publish(repository, _served(), files)
    assert {path.name for path in repository.iterdir()} == {NAME}
    assert read_wanted(repository) == ()


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_publisher_killed_between_two_renames_leaves_whole_models(
    repository: Path, files: EngineFiles, renames: int
) -> None:
    child = multiprocessing.get_context("fork").Process(target=_publish_and_die, args=(repository, files, renames))
    child.start()
    child.join()
    assert child.exitcode == 9
    there = [name for name in model_names(NAME) if (repository / name).exists()]
    assert there == list(model_names(NAME))[:renames], "encoder first, text last"
    assert publish(repository, _served(), files) == model_names(NAME)[renames:]
    whole = repository.parent / "whole" / "repository"
    publish(whole, _served(), files)
    for name in model_names(NAME):
        assert published_digest(repository / name) == published_digest(whole / name)


def _publish_and_die(repository: Path, files: EngineFiles, renames: int) -> None:
    original = Path.rename
    done = 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal done
        if done == renames:
            os._exit(9)
        done += 1
        return original(self, target)

    Path.rename = rename  # type: ignore[method-assign,assignment]
    publish(repository, _served(), files)


def test_publishers_at_the_same_time_do_not_disturb_each_other(repository: Path, files: EngineFiles) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=publish, args=(repository, _served(), files)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    assert {path.name for path in repository.iterdir()} == set(model_names(NAME))


def test_removal_takes_all_three_and_a_second_one_is_no_error(repository: Path, files: EngineFiles) -> None:
    publish(repository, _served(), files)
    publish(repository, _served(revision="shop-r2-bbbbbbbb"), files)
    assert remove(repository, NAME) == (NAME, f"{NAME}-tok", f"{NAME}-enc")
    assert remove(repository, NAME) == ()
    assert {path.name for path in repository.iterdir()} == set(model_names("shop-r2-bbbbbbbb"))
    assert read_wanted(repository) == ("shop-r2-bbbbbbbb",)


def test_a_repository_that_cannot_be_written_says_so(tmp_path: Path, files: EngineFiles) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=f"cannot publish {NAME} into .*check the volume") as caught:
        publish(tmp_path / "file" / "repository", _served(), files)
    assert caught.value.stage is BuildStage.PUBLISH


@pytest.mark.parametrize(
    ("backend", "engine", "file"),
    [
        ("python", 'backend: "python"', "model.onnx"),
        ("onnxruntime", 'backend: "onnxruntime"', "model.onnx"),
        ("tensorrt_plan", 'platform: "tensorrt_plan"', "model.plan"),
    ],
)
def test_only_the_encoder_differs_between_backends(
    repository: Path, files: EngineFiles, backend: str, engine: str, file: str
) -> None:
    publish(repository, _served(backend=backend), files)
    config = (repository / f"{NAME}-enc" / "config.pbtxt").read_text()
    assert engine in config
    assert ("KIND_GPU" in config) == (backend != "python")
    assert ('profile: [ "0", "1" ]' in config) == (backend == "tensorrt_plan")
    assert (repository / f"{NAME}-enc" / "1" / file).exists()
    assert (repository / f"{NAME}-enc" / "1" / "model.py").exists() == (backend == "python")
    for name in (NAME, f"{NAME}-tok"):
        assert 'backend: "python"' in (repository / name / "config.pbtxt").read_text()


def test_settings_with_odd_characters_survive_the_configuration() -> None:
    settings = SETTINGS.model_copy(update={"prompt": 'say "ä" \\ {now}: \n'})
    text = _served(settings=settings).text()
    line = next(line for line in text.splitlines() if "searchops_encoder" in line)
    quoted = line.split("string_value: ", 1)[1].rsplit(" } }", 1)[0]
    assert EncoderSettings.model_validate_json(json.loads(quoted)) == settings
