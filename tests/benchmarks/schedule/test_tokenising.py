import json

from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.schedule.tokenising import tokenising


def test_new_and_known_prompts_of_each_size(tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE({chr(97 + at): at for at in range(26)}, [], unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({}))

    rows = tokenising(None, folder, (100, 200), 2)

    assert [(row.prompt_bytes, row.beginning) for row in rows] == [
        (100, "new"), (100, "known"), (200, "new"), (200, "known"),
    ]  # fmt: skip
    assert all(0 < row.p50_us <= row.p99_us for row in rows)
    assert all(row.tokens > 10 for row in rows)
