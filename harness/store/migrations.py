"""The database's schema, as a list of steps that are each applied once.

A step is never edited after a release: a change is a new step. The column comments in `COLUMNS` are what the
documentation prints.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlite_utils import Database

from harness.errors import UserError

Migration = Callable[[Database], None]
MIGRATIONS: list[Migration] = []


def migration(step: Migration) -> Migration:
    MIGRATIONS.append(step)
    return step


def migrate(db: Database) -> None:
    """Bring the database up to date. Raises UserError when it was written by a newer harness."""
    table = db.table("migrations")
    applied = {row["name"] for row in table.rows} if table.exists() else set()
    known = {step.__name__ for step in MIGRATIONS}
    newer = sorted(applied - known)
    if newer:
        raise UserError(
            f"the database was written by a newer harness (it has {newer[-1]!r}): update the harness, "
            "or name another database with --db"
        )
    for step in MIGRATIONS:
        if step.__name__ not in applied:
            with db.atomic():
                step(db)
                table.insert(
                    {"name": step.__name__, "applied_at": datetime.now(UTC).isoformat(timespec="seconds")},
                    pk="name",
                )


def is_current(db: Database) -> bool:
    """Whether every step was applied."""
    table = db.table("migrations")
    return table.exists() and {step.__name__ for step in MIGRATIONS} <= {row["name"] for row in table.rows}


def run_script(db: Database, script: str) -> None:
    """Run statements one by one: `executescript` would commit the transaction that keeps a step whole."""
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)


@migration
def m001_first(db: Database) -> None:
    run_script(
        db,
        """
    CREATE TABLE machines (
        machine_id TEXT PRIMARY KEY,
        facts TEXT NOT NULL
    );
    CREATE TABLE sweeps (
        sweep_id TEXT PRIMARY KEY,
        created_at TEXT NOT NULL,
        ended_at TEXT,
        machine_id TEXT NOT NULL REFERENCES machines(machine_id),
        harness_version TEXT NOT NULL,
        spec TEXT NOT NULL,
        resolved TEXT NOT NULL,
        planned_runs INTEGER NOT NULL
    );
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        sweep_id TEXT NOT NULL REFERENCES sweeps(sweep_id),
        position INTEGER NOT NULL,
        suite TEXT NOT NULL,
        task TEXT NOT NULL,
        agent TEXT NOT NULL,
        agent_version TEXT NOT NULL,
        engine TEXT NOT NULL,
        engine_version TEXT,
        model TEXT NOT NULL,
        model_digest TEXT,
        protocol TEXT,
        think INTEGER NOT NULL,
        repetition INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        ended_by TEXT NOT NULL,
        ended_detail TEXT,
        verdict TEXT NOT NULL,
        verdict_detail TEXT,
        claimed TEXT,
        exit_code INTEGER,
        started_at TEXT NOT NULL,
        ended_at TEXT NOT NULL,
        duration_s REAL NOT NULL,
        setup_s REAL NOT NULL,
        agent_s REAL NOT NULL,
        grading_s REAL NOT NULL,
        test_s REAL,
        engine_load_s REAL,
        engine_clear_s REAL,
        calls INTEGER,
        input_tokens INTEGER,
        cached_tokens INTEGER,
        thinking_tokens INTEGER,
        output_tokens INTEGER,
        cpu_s REAL,
        sandbox_peak_anon_bytes INTEGER,
        sandbox_peak_cgroup_bytes INTEGER,
        engine_peak_bytes INTEGER,
        num_ctx INTEGER,
        num_predict INTEGER,
        temperature REAL,
        top_p REAL,
        seed INTEGER,
        image_digest TEXT NOT NULL,
        image_source TEXT NOT NULL,
        bundle TEXT,
        patch_bytes INTEGER,
        flags TEXT NOT NULL,
        harness_version TEXT NOT NULL,
        machine_id TEXT NOT NULL REFERENCES machines(machine_id),
        UNIQUE (sweep_id, position)
    );
    CREATE INDEX runs_by_cell ON runs (agent, model, task);
    CREATE TABLE calls (
        call_id TEXT PRIMARY KEY,
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        call_index INTEGER NOT NULL,
        started_at TEXT NOT NULL,
        offset_s REAL NOT NULL,
        queued_s REAL NOT NULL,
        duration_s REAL NOT NULL,
        first_token_s REAL,
        load_s REAL,
        prefill_s REAL,
        decode_s REAL,
        input_tokens INTEGER,
        cached_tokens INTEGER,
        thinking_tokens INTEGER,
        output_tokens INTEGER,
        status TEXT NOT NULL,
        http_status INTEGER,
        error TEXT,
        truncated INTEGER NOT NULL,
        finish_reason TEXT,
        dialect TEXT NOT NULL,
        streamed INTEGER NOT NULL,
        sent INTEGER NOT NULL,
        seed INTEGER,
        tool_calls INTEGER NOT NULL,
        request_bytes INTEGER NOT NULL,
        asked TEXT NOT NULL
    );
    CREATE INDEX calls_by_run ON calls (run_id, call_index);
    CREATE TABLE energy (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        source TEXT NOT NULL,
        component TEXT NOT NULL,
        layer TEXT NOT NULL CHECK (layer IN ('gross', 'idle', 'net')),
        phase TEXT NOT NULL,
        joules REAL,
        kind TEXT NOT NULL CHECK (kind IN ('measured', 'estimated', 'estimated_constant', 'unavailable')),
        coverage TEXT NOT NULL,
        PRIMARY KEY (run_id, source, component, layer, phase)
    );
    CREATE TABLE artefacts (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        path TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (run_id, name)
    );
    CREATE TABLE attempts (
        sweep_id TEXT NOT NULL REFERENCES sweeps(sweep_id),
        position INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        ended_by TEXT NOT NULL,
        detail TEXT,
        ended_at TEXT NOT NULL,
        PRIMARY KEY (sweep_id, position, attempt)
    );
    CREATE TABLE endings (
        ended_by TEXT PRIMARY KEY,
        fault TEXT NOT NULL,
        retried INTEGER NOT NULL,
        counts INTEGER NOT NULL,
        meaning TEXT NOT NULL
    );
    CREATE TABLE outcomes (
        ended_by TEXT NOT NULL,
        verdict TEXT NOT NULL,
        outcome TEXT NOT NULL,
        PRIMARY KEY (ended_by, verdict)
    );
    CREATE VIEW runs_summary AS
    SELECT runs.run_id, runs.sweep_id, runs.suite, runs.task, runs.agent, runs.engine, runs.model,
           runs.protocol, runs.think, runs.repetition, outcomes.outcome, runs.ended_by, runs.verdict,
           runs.claimed, runs.started_at, runs.duration_s, runs.agent_s, runs.calls, runs.input_tokens,
           runs.output_tokens, runs.cpu_s, runs.sandbox_peak_anon_bytes, runs.engine_peak_bytes,
           energy.joules AS energy_j, COALESCE(energy.kind, 'unavailable') AS energy_kind,
           energy.coverage AS energy_coverage, endings.counts, runs.flags, runs.machine_id
    FROM runs
    JOIN outcomes USING (ended_by, verdict)
    JOIN endings USING (ended_by)
    LEFT JOIN energy ON energy.run_id = runs.run_id AND energy.layer = 'gross'
         AND energy.phase = 'agent' AND energy.component = 'total';
    """,
    )


@migration
def m002_images_and_grades(db: Database) -> None:
    run_script(
        db,
        """
    ALTER TABLE runs ADD COLUMN image_origin TEXT;
    UPDATE runs SET image_source = 'dockerfile' WHERE image_source = 'built';
    CREATE TABLE grades (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        graded_at TEXT NOT NULL,
        verdict TEXT NOT NULL,
        detail TEXT,
        test_s REAL,
        image_digest TEXT NOT NULL,
        notes TEXT NOT NULL,
        log TEXT,
        harness_version TEXT NOT NULL,
        PRIMARY KEY (run_id, number)
    );
    INSERT INTO grades SELECT runs.run_id, 1, ended_at, verdict, verdict_detail, test_s, image_digest, '[]',
           artefacts.path, harness_version
    FROM runs LEFT JOIN artefacts ON artefacts.run_id = runs.run_id AND artefacts.name = 'tests.log';
    DROP VIEW runs_summary;
    CREATE VIEW runs_summary AS
    SELECT runs.run_id, runs.sweep_id, runs.suite, runs.task, runs.agent, runs.engine, runs.model,
           runs.protocol, runs.think, runs.repetition, outcomes.outcome, runs.ended_by, runs.verdict,
           runs.claimed, runs.started_at, runs.duration_s, runs.agent_s, runs.calls, runs.input_tokens,
           runs.output_tokens, runs.cpu_s, runs.sandbox_peak_anon_bytes, runs.engine_peak_bytes,
           energy.joules AS energy_j, COALESCE(energy.kind, 'unavailable') AS energy_kind,
           energy.coverage AS energy_coverage, endings.counts, runs.image_source, runs.image_origin,
           runs.flags, runs.machine_id
    FROM runs
    JOIN outcomes USING (ended_by, verdict)
    JOIN endings USING (ended_by)
    LEFT JOIN energy ON energy.run_id = runs.run_id AND energy.layer = 'gross'
         AND energy.phase = 'agent' AND energy.component = 'total';
    """,
    )


@migration
def m003_what_agents_say_and_change(db: Database) -> None:
    run_script(
        db,
        """
    ALTER TABLE runs ADD COLUMN agent_commit TEXT;
    ALTER TABLE runs ADD COLUMN overrides TEXT;
    ALTER TABLE runs ADD COLUMN claim_message TEXT;
    ALTER TABLE runs ADD COLUMN claim_details TEXT;
    ALTER TABLE calls ADD COLUMN refused_tokens INTEGER;
    """,
    )


@migration
def m004_energy_in_parts(db: Database) -> None:
    run_script(
        db,
        """
    ALTER TABLE energy ADD COLUMN low_j REAL;
    ALTER TABLE energy ADD COLUMN high_j REAL;
    ALTER TABLE energy ADD COLUMN detail TEXT;
    ALTER TABLE runs ADD COLUMN session INTEGER;
    ALTER TABLE runs ADD COLUMN energy_source TEXT;
    ALTER TABLE runs ADD COLUMN peak_w REAL;
    ALTER TABLE runs ADD COLUMN idle_number INTEGER;
    ALTER TABLE runs ADD COLUMN engine_location TEXT;
    ALTER TABLE runs ADD COLUMN engine_state TEXT;
    ALTER TABLE runs ADD COLUMN framework_cpu_s REAL;
    ALTER TABLE runs ADD COLUMN engine_cpu_s REAL;
    ALTER TABLE runs ADD COLUMN harness_cpu_s REAL;
    ALTER TABLE runs ADD COLUMN rest_cpu_s REAL;
    ALTER TABLE runs ADD COLUMN conditions TEXT;
    UPDATE runs SET energy_source = 'codecarbon';
    CREATE TABLE call_energy (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        call_index INTEGER NOT NULL,
        phase TEXT NOT NULL CHECK (phase IN ('load', 'prefill', 'decode')),
        duration_s REAL NOT NULL,
        tokens INTEGER,
        joules REAL,
        low_j REAL,
        high_j REAL,
        spread_j REAL,
        kind TEXT NOT NULL,
        source TEXT NOT NULL,
        coverage TEXT NOT NULL,
        PRIMARY KEY (run_id, call_index, phase)
    );
    CREATE TABLE sessions (
        sweep_id TEXT NOT NULL REFERENCES sweeps(sweep_id),
        session INTEGER NOT NULL,
        started_at TEXT NOT NULL,
        ended_at TEXT,
        duration_s REAL,
        sources TEXT NOT NULL,
        conditions TEXT NOT NULL,
        country TEXT,
        carbon_g_per_kwh REAL,
        carbon_source TEXT,
        PRIMARY KEY (sweep_id, session)
    );
    CREATE TABLE session_energy (
        sweep_id TEXT NOT NULL,
        session INTEGER NOT NULL,
        source TEXT NOT NULL,
        component TEXT NOT NULL,
        joules REAL,
        kind TEXT NOT NULL,
        coverage TEXT NOT NULL,
        detail TEXT,
        PRIMARY KEY (sweep_id, session, source, component),
        FOREIGN KEY (sweep_id, session) REFERENCES sessions(sweep_id, session)
    );
    CREATE TABLE idle (
        sweep_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        session INTEGER NOT NULL,
        before_position INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('loaded', 'unloaded')),
        model TEXT,
        started_at TEXT NOT NULL,
        duration_s REAL NOT NULL,
        source TEXT NOT NULL,
        component TEXT NOT NULL,
        watts REAL,
        kind TEXT NOT NULL,
        coverage TEXT NOT NULL,
        busy_cores REAL,
        detail TEXT,
        PRIMARY KEY (sweep_id, number, source, component),
        FOREIGN KEY (sweep_id, session) REFERENCES sessions(sweep_id, session)
    );
    CREATE TABLE jobs (
        sweep_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        session INTEGER NOT NULL,
        job TEXT NOT NULL CHECK (job IN ('warmup', 'control')),
        before_position INTEGER NOT NULL,
        what TEXT NOT NULL,
        started_at TEXT NOT NULL,
        duration_s REAL NOT NULL,
        output_tokens INTEGER,
        joules REAL,
        kind TEXT NOT NULL,
        coverage TEXT NOT NULL,
        detail TEXT,
        PRIMARY KEY (sweep_id, number),
        FOREIGN KEY (sweep_id, session) REFERENCES sessions(sweep_id, session)
    );
    CREATE TABLE calibrations (
        machine_id TEXT NOT NULL REFERENCES machines(machine_id),
        measured_at TEXT NOT NULL,
        source TEXT NOT NULL,
        coverage TEXT NOT NULL,
        factor REAL NOT NULL,
        low REAL NOT NULL,
        high REAL NOT NULL,
        windows INTEGER NOT NULL,
        duration_s REAL NOT NULL,
        detail TEXT NOT NULL,
        harness_version TEXT NOT NULL,
        PRIMARY KEY (machine_id, measured_at)
    );
    CREATE TABLE flags (
        flag TEXT PRIMARY KEY,
        leaves_out INTEGER NOT NULL,
        meaning TEXT NOT NULL
    );
    DROP VIEW runs_summary;
    CREATE VIEW runs_summary AS
    SELECT runs.run_id, runs.sweep_id, runs.suite, runs.task, runs.agent, runs.engine, runs.model,
           runs.protocol, runs.think, runs.repetition, outcomes.outcome, runs.ended_by, runs.verdict,
           runs.claimed, runs.started_at, runs.duration_s, runs.agent_s, runs.calls, runs.input_tokens,
           runs.output_tokens, runs.cpu_s, runs.sandbox_peak_anon_bytes, runs.engine_peak_bytes,
           runs.energy_source, gross.joules AS energy_j, net.joules AS net_energy_j,
           COALESCE(gross.kind, 'unavailable') AS energy_kind, gross.coverage AS energy_coverage,
           runs.peak_w, endings.counts,
           (SELECT group_concat(flags.flag, ', ') FROM json_each(runs.flags) AS said
            JOIN flags ON flags.leaves_out AND
                 flags.flag = substr(said.value, 1, instr(said.value || ':', ':') - 1)) AS left_out,
           runs.image_source, runs.image_origin, runs.engine_location, runs.flags, runs.machine_id
    FROM runs
    JOIN outcomes USING (ended_by, verdict)
    JOIN endings USING (ended_by)
    LEFT JOIN energy AS gross ON gross.run_id = runs.run_id AND gross.source = runs.energy_source
         AND gross.layer = 'gross' AND gross.phase = 'agent' AND gross.component = 'total'
    LEFT JOIN energy AS net ON net.run_id = runs.run_id AND net.source = runs.energy_source
         AND net.layer = 'net' AND net.phase = 'agent' AND net.component = 'total';
    """,
    )


@migration
def m005_what_changed_between_calls(db: Database) -> None:
    run_script(
        db,
        """
    ALTER TABLE calls ADD COLUMN workdir TEXT;
    """,
    )


@migration
def m006_guard(db: Database) -> None:
    run_script(
        db,
        """
    ALTER TABLE runs ADD COLUMN guard TEXT NOT NULL DEFAULT 'off';
    ALTER TABLE runs ADD COLUMN guard_patience INTEGER;
    CREATE TABLE interventions (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        call_index INTEGER NOT NULL,
        action TEXT NOT NULL CHECK (action IN ('observed', 'nudged', 'stopped')),
        kind TEXT NOT NULL,
        conversation INTEGER NOT NULL,
        onset INTEGER NOT NULL,
        steps INTEGER NOT NULL,
        text TEXT,
        PRIMARY KEY (run_id, number)
    );
    DROP VIEW runs_summary;
    CREATE VIEW runs_summary AS
    SELECT runs.run_id, runs.sweep_id, runs.suite, runs.task, runs.agent, runs.engine, runs.model,
           runs.protocol, runs.think, runs.repetition, outcomes.outcome, runs.ended_by, runs.verdict,
           runs.claimed, runs.started_at, runs.duration_s, runs.agent_s, runs.calls, runs.input_tokens,
           runs.output_tokens, runs.cpu_s, runs.sandbox_peak_anon_bytes, runs.engine_peak_bytes,
           runs.energy_source, gross.joules AS energy_j, net.joules AS net_energy_j,
           COALESCE(gross.kind, 'unavailable') AS energy_kind, gross.coverage AS energy_coverage,
           runs.peak_w, endings.counts,
           (SELECT group_concat(flags.flag, ', ') FROM json_each(runs.flags) AS said
            JOIN flags ON flags.leaves_out AND
                 flags.flag = substr(said.value, 1, instr(said.value || ':', ':') - 1)) AS left_out,
           runs.guard, runs.guard_patience, runs.image_source,
           runs.image_origin, runs.engine_location, runs.flags, runs.machine_id
    FROM runs
    JOIN outcomes USING (ended_by, verdict)
    JOIN endings USING (ended_by)
    LEFT JOIN energy AS gross ON gross.run_id = runs.run_id AND gross.source = runs.energy_source
         AND gross.layer = 'gross' AND gross.phase = 'agent' AND gross.component = 'total'
    LEFT JOIN energy AS net ON net.run_id = runs.run_id AND net.source = runs.energy_source
         AND net.layer = 'net' AND net.phase = 'agent' AND net.component = 'total';
    """,
    )


@migration
def m007_loops(db: Database) -> None:
    run_script(
        db,
        """
    CREATE TABLE histories (
        run_id TEXT PRIMARY KEY REFERENCES runs(run_id) ON DELETE CASCADE,
        detector TEXT NOT NULL,
        why TEXT,
        last_useful INTEGER,
        calls INTEGER NOT NULL,
        tokens INTEGER,
        counted_tokens INTEGER NOT NULL,
        wasted_calls INTEGER NOT NULL,
        wasted_tokens INTEGER,
        wasted_s REAL NOT NULL,
        wasted_j REAL,
        after_useful_calls INTEGER NOT NULL,
        after_useful_tokens INTEGER,
        after_useful_s REAL NOT NULL,
        after_useful_j REAL,
        growth TEXT NOT NULL
    );
    CREATE TABLE loops (
        run_id TEXT NOT NULL REFERENCES histories(run_id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        conversation INTEGER NOT NULL,
        onset INTEGER NOT NULL,
        end INTEGER NOT NULL,
        steps INTEGER NOT NULL,
        plain_at INTEGER,
        recovered INTEGER NOT NULL,
        PRIMARY KEY (run_id, number)
    );
    CREATE INDEX runs_for_lists ON runs (sweep_id, task, agent, engine, model, repetition, ended_by, verdict,
        position, calls, input_tokens, output_tokens, agent_s, run_id);
    CREATE INDEX energy_of_runs ON energy (run_id, source, joules)
        WHERE layer = 'gross' AND phase = 'agent' AND component = 'total';
    DROP VIEW runs_summary;
    CREATE VIEW runs_summary AS
    SELECT runs.run_id, runs.sweep_id, runs.position, runs.suite, runs.task, runs.agent, runs.engine, runs.model,
           runs.protocol, runs.think, runs.repetition, outcomes.outcome, runs.ended_by, runs.verdict,
           runs.claimed, runs.started_at, runs.duration_s, runs.agent_s, runs.calls, runs.input_tokens,
           runs.output_tokens, runs.cpu_s, runs.sandbox_peak_anon_bytes, runs.engine_peak_bytes,
           runs.energy_source, gross.joules AS energy_j, net.joules AS net_energy_j,
           COALESCE(gross.kind, 'unavailable') AS energy_kind, gross.coverage AS energy_coverage,
           runs.peak_w, endings.counts,
           (SELECT group_concat(flags.flag, ', ') FROM json_each(runs.flags) AS said
            JOIN flags ON flags.leaves_out AND
                 flags.flag = substr(said.value, 1, instr(said.value || ':', ':') - 1)) AS left_out,
           runs.guard, runs.guard_patience, runs.image_source,
           runs.image_origin, runs.engine_location, runs.flags, runs.machine_id
    FROM runs
    JOIN outcomes USING (ended_by, verdict)
    JOIN endings USING (ended_by)
    LEFT JOIN energy AS gross ON gross.run_id = runs.run_id AND gross.source = runs.energy_source
         AND gross.layer = 'gross' AND gross.phase = 'agent' AND gross.component = 'total'
    LEFT JOIN energy AS net ON net.run_id = runs.run_id AND net.source = runs.energy_source
         AND net.layer = 'net' AND net.phase = 'agent' AND net.component = 'total';
    """,
    )


@migration
def m008_door_and_runtime(db: Database) -> None:
    run_script(
        db,
        """
    ALTER TABLE runs ADD COLUMN door TEXT CHECK (door IN ('socket', 'relay'));
    ALTER TABLE runs ADD COLUMN runtime TEXT;
    UPDATE runs SET door = 'socket' WHERE engine != 'none';
    """,
    )


@migration
def m009_what_ran(db: Database) -> None:
    run_script(
        db,
        """
    ALTER TABLE runs ADD COLUMN task_image_digest TEXT;
    ALTER TABLE runs ADD COLUMN bundle_digest TEXT;
    ALTER TABLE runs ADD COLUMN sandbox_user TEXT NOT NULL DEFAULT 'root';
    """,
    )
