import numpy as np
import tf_keras as keras

from training import checkpoint


def test_arrays_come_back_and_damaged_ones_are_done_again(tmp_path):
    path = tmp_path / "x.safetensors"
    assert checkpoint.load(path) is None
    checkpoint.save(path, {"a": np.arange(3), "b": np.ones((2, 2), np.float32).T})
    assert list(checkpoint.load(path)["a"]) == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    path.write_bytes(path.read_bytes()[:20])
    assert checkpoint.load(path) is None


def test_a_kill_while_saving_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": np.arange(3)})
    monkeypatch.setattr(type(path), "replace", lambda *_: None)
    checkpoint.save(path, {"a": np.arange(5)})
    assert len(checkpoint.load(path)["a"]) == 3


def test_weights_keep_their_order_beyond_ten():
    layers = [keras.layers.Dense(3) for _ in range(8)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    before = model.get_weights()
    saved = {name: values.copy() for name, values in checkpoint.weights(model).items()}
    model.set_weights([w * 0 for w in before])
    checkpoint.set_weights(model, saved)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
