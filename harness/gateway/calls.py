"""One run's calls: each gets the engine in turn, under the run's policy, and is recorded when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, cast

from harness.analysis.steps.journal import NO_STEPS
from harness.engines.base import ChatRequest, Delta, Engine, EngineError, Finish, ModelInfo
from harness.gateway import limits
from harness.gateway.failures import aborted, engine_failed, no_answer, run_over
from harness.gateway.guard import Guard
from harness.gateway.ledger import CallRecord, CallStatus, Journal, Spoken
from harness.gateway.limits import Limits, Stop
from harness.gateway.policy import Policy, derive_seed
from harness.gateway.wire import Answer, Ask, Dialect, Failure, Refusal, Reply

log = logging.getLogger(__name__)


class Out(Protocol):
    """Where an answer goes: one HTTP response."""

    begun: bool  # whether a streamed response has started

    async def stream(self, content_type: str, data: bytes, last: bool = False) -> None: ...

    async def whole(self, body: bytes) -> None: ...

    async def fail(self, failure: Failure) -> None: ...


@dataclass(eq=False)
class Call:
    """A call under way."""

    ask: Ask
    request_bytes: int
    arrived: float
    workdir: str | None = None
    messages: Sequence[Mapping[str, Any]] | None = None  # for the engine, where a guard has a word in them
    index: int = -1
    began: float = 0.0
    started_at: str = ""
    seed: int | None = None
    first_token_s: float | None = None
    answer: Answer = field(default_factory=Answer)
    refused_tokens: int | None = None
    scope: asyncio.Timeout | None = None  # while the engine is at work
    given_up: Literal["client", "run"] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # set when it is given up
    retry_after_s: float = 0.0  # for which the engine wants to be left alone
    again: int | None = None  # the seed of the try before this one
    heals: bool = True  # whether another try makes sense
    record: CallRecord | None = None
    written: bool = False  # handed to the journal

    def begin_again(self) -> None:
        """Another try: a call of its own on record. Whoever gave it up has done so for good."""
        self.again = self.seed
        self.index, self.seed, self.arrived = -1, None, time.monotonic()
        self.first_token_s, self.refused_tokens, self.answer = None, None, Answer()
        self.retry_after_s = 0.0
        self.record, self.written = None, False

    def give_up(self, who: Literal["client", "run"]) -> None:
        """Close the engine's stream now, if it is open; a call that waits sees it at its turn."""
        if self.given_up is None:
            self.given_up = who
            self.gone.set()
        if self.scope is not None and not self.scope.expired():
            self.scope.reschedule(asyncio.get_running_loop().time())


class Calls:
    """All calls of one run. Lives on the gateway's loop; `stop` may be called from it at any time."""

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        model: ModelInfo,
        journal: Journal,
        stop: Callable[[Stop], None],
        over: Callable[[], str | None],
        mark: Callable[[], None],
    ) -> None:
        self.records: list[CallRecord] = []
        self._engine = engine
        self._policy = policy
        self._model = model
        self._journal = journal
        self._stop = stop
        self._over = over
        self._mark = mark
        self._limits = Limits(policy)
        self.guard = None if policy.guard == "off" else Guard(policy.guard, policy.guard_patience)
        self.opened_s = time.monotonic()
        self._turn = asyncio.Lock()
        self._open: set[Call] = set()
        self._next = 0  # index of the next record
        self._sent = 0  # calls that reached the engine
        self._warm = False  # whether the engine has answered anything in this run

    def check(self, ask: Ask) -> None:
        """Raise Refusal for what the policy rules out."""
        if not ask.tools:
            return
        if self._policy.protocol == "text":
            raise Refusal(400, "tools_refused", "this run is in text mode: send the request without tools")
        if "tools" not in self._model.capabilities:
            raise Refusal(
                400,
                "tools_refused",
                f"{self._model.name} has no tool support: send the request without tools",
            )

    async def answer(self, call: Call, reply: Reply, out: Out) -> None:
        """Answer one request. One at a time gets the engine, in the order of arrival."""
        self._open.add(call)
        try:
            async with self._turn:
                failure = await self._try_until_it_counts(call, reply, out)
                self._tell_guard(call)
            # Counted by now, so the next call may begin; the rest depends on how fast the client reads.
            await self._send_end(call, failure, reply, out)
        finally:
            self._open.discard(call)
            self._write(call)

    def refuse(self, failure: Failure, dialect: Dialect, asked: Mapping[str, Any], request_bytes: int) -> None:
        """Record a request that is not passed on."""
        ask = Ask(dialect, (), (), None, (), None, stream=asked.get("stream") is True, asked=asked)
        call = Call(ask, request_bytes, time.monotonic())
        self._begin(call)
        self._record(call, failure, begun=False)
        self._write(call)
        if stop := self._limits.refused(failure.message):
            self._stop(stop)

    def count_idle(self) -> None:
        """Of a request that asks nothing of the model nothing is kept but that there was one."""
        if stop := self._limits.idle():
            self._stop(stop)

    def abort_all(self) -> None:
        """The run is over: close what the engine has open."""
        for call in self._open:
            call.give_up("run")

    def end_open(self) -> None:
        """Record the calls that are still open, for an engine that does not let go of one."""
        for call in self._open:
            if call.seed is not None:
                self._record(call, aborted("run"), begun=True)
                self._write(call)

    async def _try_until_it_counts(self, call: Call, reply: Reply, out: Out) -> Failure | None:
        """Ask again where the engine failed before the client heard anything: frameworks differ in how often and how
        patiently they do that, some for minutes. Each try is a call on record, with the same seed."""
        for pause_s in (*limits.ENGINE_PAUSES_S, 0.0):  # the last failure ends the run
            if reason := self._over():
                return run_over(reason)
            failure = await self._take_turn(call, reply, out)
            if failure is None or failure.http_status < 500 or out.begun or not call.heals or call.given_up:
                break
            self._unheard(call)
            self._write(call)
            with contextlib.suppress(TimeoutError):
                pause_s = max(pause_s, min(call.retry_after_s, limits.LONGEST_PAUSE_S))
                await asyncio.wait_for(call.gone.wait(), pause_s)
            if call.given_up:
                return aborted(call.given_up)
            call.begin_again()
        return failure

    def _unheard(self, call: Call) -> None:
        """Of a try that is followed by another the client is told nothing."""
        assert call.record is not None
        self.records.remove(call.record)
        call.record = replace(call.record, http_status=None)
        self.records.append(call.record)

    async def _take_turn(self, call: Call, reply: Reply, out: Out) -> Failure | None:
        """Ask the engine, count and record the call. Returns what its client is to be told, if it failed."""
        self._begin(call)
        if call.given_up:  # while it waited
            failure: Failure | None = aborted(call.given_up)
            if call.given_up == "client" and (stop := self._limits.given_up()):
                self._stop(stop)
        elif stop := self._limits.before() or self._ask_guard(call):
            self._stop(stop)
            failure = run_over(stop.detail, stop.reason)
        else:
            failure = aborted("run")  # unless this task itself is cancelled, the engine has the word
            # Not by the record's index: a framework that tries what is refused keeps the seeds of one that does not.
            if call.again is None:
                call.seed = derive_seed(self._policy.seed, self._sent)
                self._sent += 1
            else:
                call.seed = call.again
            try:
                failure = await self._ask_engine(call, call.seed, reply, out)
            finally:
                if stop := self._count(call, failure):
                    self._stop(stop)
                    if failure and failure.http_status >= 500:
                        failure = replace(failure, http_status=403, message=f"the run is over: {stop.detail}")
                self._record(call, failure, begun=out.begun)
            return failure
        self._record(call, failure, begun=out.begun)
        return failure

    def _ask_guard(self, call: Call) -> Stop | None:
        """Let the guard see a request, once for all its tries."""
        if self.guard is None or call.again is not None:
            return None
        call.messages, stop = self.guard.before(call.index, call.ask.messages, call.workdir)
        return stop

    def _tell_guard(self, call: Call) -> None:
        """Let the guard see what became of a request: the same as the journal will tell."""
        record, answer = call.record, call.answer
        if self.guard is None or record is None or record.status in NO_STEPS:
            return
        if record.status == "engine_error" and record.http_status is None:
            return
        if record.seed is None:  # given up while it waited: nobody has seen the request yet
            _, stop = self.guard.before(record.index, call.ask.messages, call.workdir)
            if stop is not None:
                self._stop(stop)
        cut = record.finish_reason == "length"
        self.guard.after(
            record.index, record.status, "".join(answer.text), "".join(answer.thinking), answer.tool_calls, cut
        )  # fmt: skip

    async def _ask_engine(self, call: Call, seed: int, reply: Reply, out: Out) -> Failure | None:
        """Stream the engine's answer into `call`, and on to a client that streams."""
        request = self._request(call, seed)
        failure: Failure | None
        scope = call.scope = asyncio.timeout(self._policy.call_timeout_s)
        self._mark()
        try:
            async with scope:
                # Engine.chat is a generator in all but the interface's words: closing it is what aborts.
                stream = cast(AsyncGenerator[Delta | Finish, None], self._engine.chat(request))
                async with aclosing(stream) as events:
                    async for event in events:
                        self._warm = True
                        if isinstance(event, Finish):
                            call.answer.finish = event
                            continue
                        if call.first_token_s is None:
                            call.first_token_s = time.monotonic() - call.began
                            self._mark()
                        call.answer.add(event)
                        if call.answer.size_bytes > limits.ANSWER_BYTES:
                            raise EngineError("unavailable", f"an answer of more than {limits.ANSWER_BYTES >> 20} MB")
                        if call.ask.stream:
                            await out.stream(reply.stream_type, reply.piece(event))
        except TimeoutError as error:
            failure = engine_failed(EngineError("timeout", str(error) or "no answer in time"), self._policy)
        except EngineError as error:
            failure = engine_failed(error, self._policy)
            call.refused_tokens, call.retry_after_s = error.prompt_tokens, error.retry_after_s or 0.0
        except Exception as error:
            log.exception("the engine %s raised something that is not an EngineError", self._engine.name)
            call.heals = False  # a fault of ours, and it would come again
            fault = EngineError("unavailable", f"{type(error).__name__}: {error}")
            failure = engine_failed(fault, self._policy)
        else:
            failure = no_answer(call.answer, self._policy)
        finally:
            call.scope = None
            self._mark()
        if failure is None or not scope.expired():
            return failure
        # It was ended from here, whatever the engine made of that.
        if call.given_up:
            return aborted(call.given_up)
        limit = f"the answer was not complete after {self._policy.call_timeout_s:g} s"
        return Failure("timeout", 400, "call_timeout", limit)

    def _request(self, call: Call, seed: int) -> ChatRequest:
        policy, ask = self._policy, call.ask
        return ChatRequest(
            model=policy.model,
            messages=ask.messages if call.messages is None else call.messages,
            num_ctx=policy.num_ctx,
            num_predict=policy.num_predict,
            temperature=policy.temperature,
            seed=seed,
            top_p=policy.top_p,
            think=policy.think,
            tools=ask.tools,
            tool_choice=ask.tool_choice if ask.tools else None,
            stop=ask.stop,
            response_format=ask.response_format,
            fresh=not self._warm,
        )

    async def _send_end(self, call: Call, failure: Failure | None, reply: Reply, out: Out) -> None:
        if failure is not None:
            if out.begun:
                await out.stream(reply.stream_type, reply.broken(failure), last=True)
            else:
                await out.fail(failure)
            return
        finish = call.answer.finish
        assert finish is not None
        if call.ask.stream:
            await out.stream(reply.stream_type, reply.closing(call.answer, finish), last=True)
        else:
            await out.whole(reply.whole(call.answer, finish))

    def _begin(self, call: Call) -> None:
        call.index = self._next
        self._next += 1
        call.began = time.monotonic()
        call.started_at = datetime.now(UTC).isoformat(timespec="milliseconds")

    def _count(self, call: Call, failure: Failure | None) -> Stop | None:
        finish = call.answer.finish
        tokens = (finish.input_tokens or 0) + (finish.output_tokens or 0) if finish else 0
        if failure is None:
            return self._limits.after("ok", tokens, None)
        return self._limits.after(failure.status, tokens, failure.message)

    def _record(self, call: Call, failure: Failure | None, begun: bool) -> None:
        if call.record is not None:
            return
        status: CallStatus = failure.status if failure else "ok"
        http_status: int | None = 200 if failure is None or begun else failure.http_status
        if call.given_up == "client":
            http_status = None
        finish = call.answer.finish
        call.record = CallRecord(
            index=call.index,
            call_id=uuid.uuid4().hex,
            started_at=call.started_at,
            offset_s=call.began - self.opened_s,
            queued_s=call.began - call.arrived,
            duration_s=time.monotonic() - call.began,
            first_token_s=call.first_token_s,
            load_s=finish.load_s if finish else None,
            prefill_s=finish.prefill_s if finish else None,
            decode_s=finish.decode_s if finish else None,
            input_tokens=finish.input_tokens if finish else None,
            cached_tokens=finish.cached_tokens if finish else None,
            thinking_tokens=finish.thinking_tokens if finish else None,
            output_tokens=finish.output_tokens if finish else None,
            status=status,
            http_status=http_status,
            error=failure.message if failure else None,
            truncated=status == "context_overflow" or (finish is not None and finish.reason == "length"),
            finish_reason=finish.reason if finish else None,
            dialect=call.ask.dialect,
            streamed=call.ask.stream,
            sent=call.seed is not None,
            seed=call.seed,
            asked=call.ask.asked,
            tool_calls=len(call.answer.tool_calls),
            request_bytes=call.request_bytes,
            refused_tokens=call.refused_tokens,
            workdir=call.workdir,
        )
        self.records.append(call.record)

    def _write(self, call: Call) -> None:
        if call.record is None or call.written:
            return
        call.written = True
        answer = call.answer
        self._journal.add(
            call.record,
            Spoken(
                messages=call.ask.messages,
                tools=call.ask.tools,
                text="".join(answer.text),
                thinking="".join(answer.thinking),
                tool_calls=tuple(answer.tool_calls),
            ),
        )
