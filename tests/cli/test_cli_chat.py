from __future__ import annotations

import checkpoints
import pytest

from longspan import LLM, Sampling
from longspan.cli.chat import Conversation

GREEDY = Sampling(max_new_tokens=6, ignore_eos=True)
EXACT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}U: {{ m['content'] }}\nA:"
    "{% else %}{{ m['content'] }}\n{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def loaded(chatty):
    return LLM(chatty)


@pytest.fixture
def llm(loaded):
    """The model, whose cache must be empty when a test has ended."""
    yield loaded
    assert loaded.pool.owned == 0


def test_each_turn_is_what_a_whole_reading_gives(llm):
    conversation = Conversation(llm, GREEDY)
    for text in ("Hello there", "And then?", "What is more?"):
        said: list[str] = []
        before = [*conversation.messages, {"role": "user", "content": text}]
        output = conversation.turn(text, said.append)
        assert output.ids == llm.chat(before, GREEDY).ids
        assert "".join(said) == output.text.lstrip()
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 3
    conversation.reset()


def test_only_the_new_turn_is_read(llm):
    conversation = Conversation(llm, GREEDY)
    first = conversation.turn("x" * 100, lambda piece: None)
    second = conversation.turn("And then?", lambda piece: None)
    assert first.tokens_cached == first.tokens_in - 1  # all but the last id, which the answer begins from
    assert second.tokens_in > 100
    read: list[int] = []
    forward, llm.scheduler.forward = (
        llm.scheduler.forward,
        lambda s, ids, keep: (read.append(len(ids)), forward(s, ids, keep))[1],
    )
    try:
        third = conversation.turn("More", lambda piece: None)
    finally:
        llm.scheduler.forward = forward
    new = third.tokens_in - second.tokens_in
    assert sum(read) <= new + third.tokens_out
    conversation.reset()


@pytest.mark.parametrize("kept", [True, False])
def test_an_answer_is_read_again_only_when_the_template_changes_it(tmp_path, monkeypatch, kept):
    checkpoints.make("llama", tmp_path, max_position_embeddings=4096)
    checkpoints.tokenizer(tmp_path, EXACT if kept else EXACT.replace("{% else %}", "{% else %}<"))
    llm = LLM(tmp_path)
    letter = llm.encode("a")[0]
    monkeypatch.setattr("longspan.engine.sample.Sampler.draw", lambda self, logits, ids: (letter, None))
    read: list[int] = []
    forward = llm.scheduler.forward

    def counting(segments, ids, keep):
        read.append(len(ids))
        return forward(segments, ids, keep)

    llm.scheduler.forward = counting
    conversation = Conversation(llm, Sampling(max_new_tokens=4))
    conversation.turn("Hello", lambda piece: None)
    assert sum(read) == len("U: Hello\nA:") + 3
    read.clear()
    conversation.turn("More", lambda piece: None)
    if kept:  # the newest id is not cached yet
        assert sum(read) == 1 + len("\nU: More\nA:") + 3
    else:
        assert sum(read) == 1 + len("<aaaa\nU: More\nA:") + 3


def test_a_stopped_answer_leaves_the_conversation_in_order(llm):
    conversation = Conversation(llm, GREEDY)
    conversation.turn("Hello", lambda piece: None)
    heard: list[str] = []

    def stop(piece: str) -> None:
        heard.append(piece)
        if len("".join(heard)) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversation.turn("And then?", stop)
    assert conversation.messages[-1] == {"role": "assistant", "content": "".join(heard)}
    before = [*conversation.messages, {"role": "user", "content": "Go on"}]
    assert conversation.turn("Go on", lambda piece: None).ids == llm.chat(before, GREEDY).ids
    conversation.reset()


def test_an_answer_stopped_before_its_first_word_takes_the_question_back(llm):
    conversation = Conversation(llm, GREEDY)
    conversation.turn("Hello", lambda piece: None)
    messages = list(conversation.messages)

    def broken(segments, ids, keep):
        raise KeyboardInterrupt

    forward, llm.scheduler.forward = llm.scheduler.forward, broken
    try:
        with pytest.raises(KeyboardInterrupt):
            conversation.turn("x" * 300, lambda piece: None)
    finally:
        llm.scheduler.forward = forward
    assert conversation.messages == messages
    assert conversation.turn("Bye", lambda piece: None).tokens_out == 6
    conversation.reset()


def test_piped_lines_are_turns(cli, chatty):
    options = ("--max-new-tokens", 4, "--ignore-eos")
    result = cli("chat", "--model", chatty, *options, stdin=b"Hello\n\n/reset\nHello\n")
    assert (result.code, result.err) == (0, "")
    first, second = result.out[: len(result.out) // 2], result.out[len(result.out) // 2 :]
    assert first == second
    assert first.endswith("\n")
    assert cli("chat", "--model", chatty, *options, stdin=b"/quit\nHello\n").out == ""
    assert cli("chat", "--model", chatty, *options, stdin=b"Hello").out == first


def test_without_a_template_there_is_a_way_out(cli, plain):
    result = cli("chat", "--model", plain, stdin=b"Hello\n")
    assert (result.code, result.out) == (2, "")
    assert "has no chat template" in result.err
    assert "longspan run --prompt" in result.err


def test_bad_sampling_is_refused_first(cli):
    assert cli("chat", "--model", "/no/such/model", "--top-p", 2).code == 2


def test_ctrl_c_at_the_prompt_ends_with_130(cli, chatty, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt="": (_ for _ in ()).throw(KeyboardInterrupt))
    result = cli("chat", "--model", chatty, terminal=True)
    assert result.code == 130
    assert result.err.endswith("interrupted\n")


def test_on_a_terminal_the_conversation_outlives_a_stopped_and_a_too_long_turn(cli, chatty, monkeypatch):
    lines = iter(["x" * 1000, "Hello", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    stopped = []

    def turn(self, text, said, own=Conversation.turn):
        if text == "Hello" and not stopped:
            stopped.append(text)
            raise KeyboardInterrupt
        return own(self, text, said)

    monkeypatch.setattr(Conversation, "turn", turn)
    result = cli("chat", "--model", chatty, "--memory", "200kB", terminal=True)
    assert result.code == 0
    assert "holds 256 tokens" in result.err
    assert "/reset forgets" in result.err
    assert stopped


def test_in_a_pipe_a_too_long_turn_ends_the_conversation(cli, chatty):
    result = cli("chat", "--model", chatty, "--memory", "200kB", stdin=b"x" * 1000)
    assert (result.code, result.out) == (3, "")
    assert "holds 256 tokens" in result.err
