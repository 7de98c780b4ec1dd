"""The gate Job before it measures: holdout, catalogue and earlier evidence are what was asked for, or are named."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.retrieval import BUILTIN_PROFILES
from searchops.api.tasks import EXIT_OK, EXIT_RETRY, Arm, EvaluateResult, EvaluateTask
from searchops.api.v1alpha1.embedding_model import HoldoutReference, Margins
from searchops_workers.digests import bytes_digest, directory_digest
from searchops_workers.holdout.evaluate import run_evaluate
from searchops_workers.holdout.format import write_holdout
from searchops_workers.holdout.material import MaterialError, catalogue_uri
from searchops_workers.holdout.recorded_runs import run_bytes
from searchops_workers.holdout.records import CatalogueRef
from searchops_workers.holdout.runs import Legs, Ranking, Run, parse_run
from unit.workers.holdout.gate_samples import CREATED, GAINS, judgment, query

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "sha256:" + "0" * 64
PRODUCTS = ({"id": "nut", "title": "Hex nut M12"}, {"id": "shirt", "title": "White shirt"})


def lines(*products: Any) -> bytes:
    return b"".join(json.dumps(product).encode() + b"\n" for product in products)


class Job:
    """One gate Job with lexical arms, which need no server."""

    def __init__(self, folder: Path, catalogue: bytes = lines(*PRODUCTS), **reference: str) -> None:
        self.folder, self.directory = folder, folder / "holdout" / "1.0.0"
        self.catalogue = folder / "catalogue.jsonl"
        self.catalogue.write_bytes(catalogue)
        write_holdout(
            self.directory,
            name=reference.get("name", "core"),
            version="1.0.0",
            gains=GAINS,
            licence="MIT",
            created=CREATED,
            queries=[query(0, text="hex nut"), query(1, text="white shirt")],
            judgments=[judgment("q0", "nut", 3), judgment("q1", "shirt", 3)],
            catalogue=CatalogueRef(
                uri=reference.get("uri", "../../catalogue.jsonl"),
                sha256=reference.get("sha256", bytes_digest(catalogue)),
            ),
        )
        self.digest = directory_digest(self.directory)

    def run(
        self,
        *,
        anchored: tuple[str, ...] = (),
        more: tuple[HoldoutReference, ...] = (),
        recorded: str | None = None,
    ) -> EvaluateResult:
        task = EvaluateTask(
            model="m",
            change="Repackage",
            incumbent=Arm(revision="one", recorded=recorded),
            candidate=Arm(revision="two"),
            servers=(),
            holdouts=(HoldoutReference(name="core", uri=f"file://{self.directory}", digest=self.digest), *more),
            margins=Margins(),
            profile=BUILTIN_PROFILES["plain"],
            anchored=anchored,
            embeddings=f"file://{self.folder}/embeddings",
            evidence_uri=f"file://{self.folder}/evidence.json",
            result_uri=f"file://{self.folder}/result.json",
        )
        self.code = run_evaluate(task)
        return EvaluateResult.model_validate_json((self.folder / "result.json").read_bytes())


def test_a_catalogue_beside_the_holdout_is_found_and_both_arms_are_measured_on_it(tmp_path: Path) -> None:
    job = Job(tmp_path)
    result = job.run()
    assert (job.code, result.outcome, result.reason) == (EXIT_OK, "Inconclusive", "TooFewQueries")
    assert (result.lost, result.of) == (0, 2), "both queries find their product by the lexical legs"
    assert result.evidence_digest == bytes_digest((tmp_path / "evidence.json").read_bytes())


@pytest.mark.parametrize(
    ("catalogue", "said"),
    [
        (lines(PRODUCTS[0]) + b"{'id': 1}\n", "catalogue.jsonl:2: \"{'id': 1}\" is no JSON"),
        (lines(PRODUCTS[0]) + b"\n[1]\n", "catalogue.jsonl:3: a product is list; wanted a JSON object with an id"),
        (lines({"title": "no id"}), "catalogue.jsonl:1: id is None; wanted a text or a number"),
        (b"\xff\n", "catalogue.jsonl:1: '\\ufffd' is no JSON"),
        (b"\n\n", "catalogue.jsonl: seen no product; wanted the catalogue that the labels were given on"),
    ],
)
def test_a_bad_line_of_the_catalogue_is_named_by_file_and_number(tmp_path: Path, catalogue: bytes, said: str) -> None:
    job = Job(tmp_path, catalogue)
    result = job.run()
    assert (job.code, result.outcome, result.reason) == (EXIT_OK, "Invalid", "UnreadableInput")
    assert result.message.startswith("spec.gate.holdouts[core]: catalogue file://")
    assert said.replace("\\ufffd", "\ufffd") in result.message
    assert "\n" not in result.message


def test_another_catalogue_or_another_holdout_is_a_hash_mismatch_with_both_digests(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.catalogue.write_bytes(lines(PRODUCTS[0]))
    result = job.run()
    assert (result.outcome, result.reason) == ("Invalid", "HashMismatch")
    assert bytes_digest(lines(PRODUCTS[0])) in result.message
    assert bytes_digest(lines(*PRODUCTS)) in result.message
    job.digest = DIGEST
    result = job.run()
    assert (result.outcome, result.reason) == ("Invalid", "HashMismatch")
    assert result.message.startswith(f"spec.gate.holdouts[core].digest: seen {directory_digest(job.directory)}")
    assert f"wanted {DIGEST}" in result.message


def test_a_holdout_that_does_not_verify_is_invalid_with_its_first_problem_in_one_line(tmp_path: Path) -> None:
    job = Job(tmp_path)
    (job.directory / "notes.txt").write_text("mine")
    job.digest = directory_digest(job.directory)
    result = job.run()
    assert (result.outcome, result.reason) == ("Invalid", "UnreadableInput")
    assert "notes.txt: seen an entry that a holdout does not have" in result.message
    assert "\n" not in result.message


def test_a_catalogue_that_is_not_there_is_tried_again_without_an_answer(tmp_path: Path, capsys: Any) -> None:
    job = Job(tmp_path, uri="../../elsewhere.jsonl")
    with pytest.raises(FileNotFoundError):
        job.run()
    assert job.code == EXIT_RETRY
    assert "elsewhere.jsonl cannot be read" in capsys.readouterr().out


def test_earlier_evidence_that_is_none_is_invalid_and_never_passed_over(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.run()
    (tmp_path / "broken.json").write_text("{}")
    earlier = (f"file://{tmp_path}/evidence.json", f"file://{tmp_path}/broken.json")
    result = job.run(anchored=earlier)
    assert (job.code, result.outcome, result.reason) == (EXIT_OK, "Invalid", "UnreadableInput")
    assert "anchored[1]: seen no evidence document" in result.message
    assert job.run(anchored=earlier[:1]).outcome == "Inconclusive"


def test_the_worst_of_several_holdouts_decides(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    job, second = Job(tmp_path), Job(tmp_path / "second")
    sound = HoldoutReference(name="other", uri=f"file://{second.directory}", digest=second.digest)
    assert job.run(more=(sound,)).outcome == "Inconclusive"
    assert (tmp_path / "evidence-other.json").exists(), "each holdout has evidence of its own"
    result = job.run(more=(sound.model_copy(update={"digest": DIGEST}),))
    assert (result.outcome, result.reason) == ("Invalid", "HashMismatch")
    assert result.message.startswith("spec.gate.holdouts[other].digest")


def test_a_promoted_revision_holds_later_ones_to_every_holdout_it_was_judged_on(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    job, second = Job(tmp_path), Job(tmp_path / "second", name="spare")
    more = (HoldoutReference(name="other", uri=f"file://{second.directory}", digest=second.digest),)
    job.run(more=more)
    (tmp_path / "evidence.json").rename(tmp_path / "promoted.json")
    (tmp_path / "evidence-other.json").rename(tmp_path / "promoted-other.json")
    job.run(anchored=(f"file://{tmp_path}/promoted.json",), more=more)
    anchors = {
        document["holdout"]["name"]: document["question"]["anchors"]
        for document in (
            json.loads((tmp_path / name).read_bytes()) for name in ("evidence.json", "evidence-other.json")
        )
    }
    assert anchors == {"core": 2, "spare": 2}


def test_promoted_evidence_that_is_gone_is_tried_again_and_not_passed_over(tmp_path: Path, capsys: Any) -> None:
    job = Job(tmp_path)
    with pytest.raises(FileNotFoundError):
        job.run(anchored=(f"file://{tmp_path}/gone.json",))
    assert job.code == EXIT_RETRY
    assert "gone.json cannot be read" in capsys.readouterr().out


def reference(uri: str) -> HoldoutReference:
    return HoldoutReference(name="core", uri=uri, digest=DIGEST)


@pytest.mark.parametrize(
    ("holdout", "catalogue", "found"),
    [
        ("s3://b/holdout/core/1.0.0", "../../../catalogue/shop.jsonl", "s3://b/catalogue/shop.jsonl"),
        ("s3://b/holdout/core/1.0.0/", "shop.jsonl", "s3://b/holdout/core/1.0.0/shop.jsonl"),
        ("s3://b/core", "../../../../etc/passwd", "s3://b/etc/passwd"),
        ("s3://b/core", "/etc/passwd", "s3://b/etc/passwd"),
        ("s3://b/core", "gs://other/shop.jsonl", "gs://other/shop.jsonl"),
        ("file:///srv/core", "../shop.jsonl", "file:///srv/shop.jsonl"),
        ("file:///srv/core", "file:///data/shop.jsonl", "file:///data/shop.jsonl"),
    ],
)
def test_a_relative_catalogue_stays_in_the_store_of_its_holdout(holdout: str, catalogue: str, found: str) -> None:
    assert catalogue_uri(reference(holdout), catalogue) == found


@pytest.mark.parametrize(
    ("catalogue", "said"),
    [
        ("file:///etc/passwd", "file:// is switched off for a holdout at s3://"),
        ("http://shop/catalogue", "wanted s3://, gs://, or a path relative to the holdout"),
        ("s3::file:///etc/passwd", "wanted s3://, gs://"),
        ("s3://b::file:///etc/passwd", "wanted s3://, gs://"),
        ("../b::shop.jsonl", "wanted s3://, gs://"),
    ],
)
def test_a_holdout_in_a_store_names_no_file_of_the_machine_and_no_other_scheme(catalogue: str, said: str) -> None:
    with pytest.raises(MaterialError) as refused:
        catalogue_uri(reference("s3://b/core"), catalogue)
    assert str(refused.value).startswith(f"spec.gate.holdouts[core]: catalogue.ref uri: seen {catalogue!r}")
    assert said in str(refused.value)


def recorded_side(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "evidence.json").read_bytes())
    return document


def test_a_revision_is_held_to_its_own_answers_of_the_day_it_was_judged(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.run()
    before = {name: (tmp_path / name).read_bytes() for name in ("evidence.json", "evidence.run.gz")}
    kept = tmp_path / "then"
    kept.mkdir()
    for name, content in before.items():
        (kept / name).write_bytes(content)
    result = job.run(recorded=f"file://{kept}/evidence.json")
    assert (job.code, result.outcome, result.reason, result.lost, result.of) == (
        EXIT_OK,
        "Inconclusive",
        "TooFewQueries",
        0,
        2,
    )
    document = recorded_side(tmp_path)
    assert document["runs"]["incumbent"]["name"] == "one as recorded"
    assert document["runs"]["repeat"] is None
    assert {gate["gate"]: gate["state"] for gate in document["gates"]}["A/A"] == "NotTested"
    assert (tmp_path / "evidence.run.gz").read_bytes() == before["evidence.run.gz"], "equal lists, equal bytes"


def test_other_answers_than_those_of_that_day_are_lost_families(tmp_path: Path) -> None:
    good = Job(tmp_path)
    good.run()
    kept = tmp_path / "then"
    kept.mkdir()
    run = gzip.decompress((tmp_path / "evidence.run.gz").read_bytes()).decode()
    swapped = run.replace(" nut ", " other ").replace(" shirt ", " nut ").replace(" other ", " shirt ")
    assert swapped != run
    lists = parse_run(swapped.split("\n"), name="two")
    document = recorded_side(tmp_path)
    document["runs"]["candidate"]["digest"] = lists.digest
    (kept / "evidence.json").write_text(json.dumps(document))
    (kept / "evidence.run.gz").write_bytes(run_bytes(lists))
    result = good.run(recorded=f"file://{kept}/evidence.json")
    assert (result.lost, result.of) == (0, 0), "nothing was Good that day, so nothing can be lost"
    gained = recorded_side(tmp_path)["gains"]
    assert {entry["query"] for entry in gained} == {"q0", "q1"}


@pytest.mark.parametrize("damage", ["no lists", "other lists", "half a file", "no evidence", "another holdout"])
def test_without_its_answers_of_that_day_nothing_is_compared(tmp_path: Path, damage: str) -> None:
    job = Job(tmp_path)
    job.run()
    kept = tmp_path / "then"
    kept.mkdir()
    document, lists = recorded_side(tmp_path), (tmp_path / "evidence.run.gz").read_bytes()
    if damage == "another holdout":
        document["holdout"]["digest"] = DIGEST
    if damage != "no evidence":
        (kept / "evidence.json").write_text(json.dumps(document))
    if damage == "other lists":
        lists = gzip.compress(gzip.decompress(lists).replace(b"shirt", b"skirt"))
    if damage != "no lists":
        (kept / "evidence.run.gz").write_bytes(lists[:20] if damage == "half a file" else lists)
    result = job.run(recorded=f"file://{kept}/evidence.json")
    assert (job.code, result.outcome, result.reason) == (EXIT_OK, "Invalid", "NothingRecorded")
    assert result.message.startswith("spec.gate.holdouts[core]: seen no result lists of one on version 1.0.0")


def test_lists_whose_scores_rise_in_their_last_bit_are_kept_in_their_order() -> None:
    scores = (0.25, 0.25 + 2**-54, 0.125)
    assert scores[1] > scores[0]
    run = Run("two", {"q0": Ranking(("b", "a", "c"), Legs.HYBRID, scores), "q1": Ranking((), Legs.LEXICAL)})
    text = gzip.decompress(run_bytes(run)).decode()
    read = parse_run(text.split("\n"), name="two")
    assert read.digest == run.digest
    assert {query: ranking.products for query, ranking in read.rankings.items()} == {"q0": ("b", "a", "c"), "q1": ()}
