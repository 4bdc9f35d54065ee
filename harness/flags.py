"""What a run's flags mean, and the stated rule by which analysis leaves flagged runs out of energy and time.

A flag may carry a reason after a colon ("no_energy: ..."); the word before it is its name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """`leaves_out`: whether statistics of energy and time leave a run with it out. Its verdict and its tokens count."""

    meaning: str
    leaves_out: bool = False


FLAGS: dict[str, Flag] = {
    # The machine was not what it was for the other runs.
    "throttled": Flag("the processor or a GPU lowered its clock for heat or power during the agent stage", True),
    "neighbour_busy": Flag(
        "programs that are none of the run's used over a quarter of a core at the mean, or a twentieth of the machine",
        True,
    ),
    "gpu_shared": Flag("when the run ended, a process other than the engine was on a GPU that the engine uses", True),
    "harness_busy": Flag("the harness and its instruments took over 2 % of the machine's CPU time", True),
    "idle_drift": Flag("idle power before and after the run differ by over 10 %, so net energy can't be trusted", True),
    "idle_busy": Flag("idle power was measured while other programs were at work, so net energy is too low"),
    "clock_jump": Flag("the machine was suspended, or its clock was set, during the run", True),
    "not_cooled": Flag("the rest before it ended at its longest, with the machine still over its band of idle", True),
    "warm_cache": Flag("the engine found part of the first prompt in its cache", True),
    "engine_not_drained": Flag(
        "the engine did not come to rest after the run and could not be restarted: something may have been generated "
        "into the next one",
        True,
    ),
    "source_missing": Flag("a source of energy that this sweep has fell silent in the run; its figures are empty"),
    # What is known of its energy.
    "energy_is_a_clock": Flag("over half of the energy is a constant power times seconds"),
    "no_energy": Flag("why there is no figure of energy"),
    "sandbox_unseen": Flag(
        "why memory and CPU time of the sandbox are unknown; where Docker is on another machine its energy is, too, "
        "and the coverage says which machine the figures are of"
    ),
    "shared_machine": Flag("other runs went on at the same time (--slots), so it has no energy of its own"),
    # The engine.
    "cache_unknown_at_start": Flag(
        "the engine does not tell what it found in its cache (Ollama); it was cleared all the same"
    ),
    "engine_retried": Flag(
        "the engine failed a call and the gateway asked again, after 1 s and after 4 s, with the same seed; the pauses "
        "are in the run's seconds and energy, each try is a row of `calls`"
    ),
    "engine_restarted": Flag("the engine went on generating after the run's end and was stopped by force"),
    "engine": Flag("what the engine noted when it was made ready"),
    "tokens_incomplete": Flag(
        "the engine did not count all of a call (mostly one that was aborted or failed); the sums are of what is known"
    ),
    "workdir_unwatched": Flag(
        "the sandbox could not watch the work directory, so what its steps changed is unknown to the search for loops"
    ),
    "way_ended": Flag("how the sandbox itself ended its way to the model; later requests found nobody"),
    "answers_truncated": Flag("an answer was cut by its longest length or the window, or a prompt did not fit"),
    # The sandbox.
    "docker_slow": Flag(
        "Docker took over a second, and over 2 % of the agent's time, to say that the agent had begun and ended: its "
        "seconds and energy may be too high by as much",
        True,
    ),
    "tmp_full": Flag("the agent filled the /tmp of its sandbox"),
    # What the agent left.
    "patch_left_out_large_files": Flag(
        "a changed file over 32 MiB, or what is new beyond 64 MiB or 20,000 files together, is not in the patch"
    ),
    "patch_left_out_names_of_git": Flag(
        "a file by a name that git takes into no tree (`.GIT`, a link `.gitmodules`) is not in the patch"
    ),
    "out_folder_too_large": Flag("the agent left over 64 MiB of its own files; none but its claim was kept"),
    "output_cut": Flag("the agent printed over 16 MiB; the middle was not kept"),
    # The grading.
    "put_back_for_grading": Flag(
        "the patch changed files that decide how tests are run; its versions of them were not graded"
    ),
    "patch_applied_by_three_way": Flag("the patch did not go on by `git apply` alone"),
    "patch_applied_by_patch_fuzz": Flag("the patch did not go on by `git apply` alone"),
    "graded_by_log_alone": Flag("the repository's test runner keeps no record of its own, so the verdict is the log's"),
    "graded_with_network": Flag("the instance's tests reach the internet, and had it for the grading"),
    "graded_in_another_image": Flag("`harness grade` found another image of the task than the run had"),
}
