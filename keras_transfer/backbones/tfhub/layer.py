"""A Keras 3 layer over a TensorFlow 2 SavedModel, such as one of TF-Hub."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.backbones.tfhub.saved_model import (
    FILE,
    Program,
    digest_folder,
    is_same,
    read_program,
)

if TYPE_CHECKING:
    import tensorflow as tf


# Prefix of the temporary folders into which layers unpack SavedModels.
_PREFIX = "keras_transfer-saved-model-"


@keras.saving.register_keras_serializable(package="keras_transfer")
class SavedModelLayer(keras.layers.Layer):
    """Runs a TensorFlow 2 SavedModel and trains its variables.

    The SavedModel has TF-Hub's reusable interface (`__call__`, `variables`,
    `trainable_variables`, `regularization_losses`) or signatures. Its variables
    become the layer's weights, without a copy. It runs in inference mode, so
    that moving averages do not update, unless it is trainable and
    `training_mode` is on. A trainable layer adds its regularization losses.

    A `.keras` file of a model with this layer contains the SavedModel, and
    needs neither its folder nor TF-Hub, but `import keras_transfer`. Loading it
    runs the graph it contains, so open only files that you trust. Files and
    archives are unpacked into a temporary folder, which is deleted with the
    layer.

    Args:
        saved_model: Folder with `saved_model.pb`, or an archive of it. `None`
            for a layer whose SavedModel is in a `.keras` file. Defaults to
            `None`.
        signature: Name of the signature to run, or `None` for `__call__`.
            Defaults to `None`.
        output: Key of the output, if there are several. Defaults to `None`.
        training_mode: Whether a trainable layer runs in training mode, which
            updates BatchNormalization statistics and enables dropout. Defaults
            to `False`, since few examples would degrade the statistics.
        known: Description of the SavedModel, from `get_config`. Defaults to
            `None`.
        **kwargs: Further arguments of `keras.layers.Layer`. `trainable` is
            `False` unless given.

    Raises:
        ValueError: If there is no such SavedModel, signature or output, or it
            cannot run: TF-Hub's format for TensorFlow 1, operations that this
            TensorFlow lacks, several inputs, ragged or sparse ones.

    Example:

    >>> inputs = keras.Input([32, 32, 3])
    >>> outputs = keras.layers.Conv2D(4, 3)(inputs)
    >>> keras.Model(inputs, outputs).export(folder / "saved", verbose=False)
    >>> layer = SavedModelLayer(folder / "saved", signature="serve")
    >>> layer(images).shape
    TensorShape([2, 30, 30, 4])

    Reference:
        - https://www.tensorflow.org/hub/reusable_saved_models
    """

    def __init__(
        self,
        saved_model: str | Path | None = None,
        *,
        signature: str | None = None,
        output: str | None = None,
        training_mode: bool = False,
        known: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("trainable", False)
        # Inputs are cast to the dtype of the SavedModel, not of Keras' policy.
        super().__init__(autocast=False, **kwargs)
        self.supports_jit = False
        self._signature = signature
        self._output = output
        self._training_mode = training_mode
        self._known = dict(known or {})
        self._folder: Path | None = None
        self._program: Program | None = None
        if saved_model is not None:
            folder = self._find(Path(saved_model))
            if not self._known or is_same(folder, self._known):
                self._take(folder)
        if self._program is None and not self._known:
            raise ValueError(
                "`saved_model` must be a folder with a SavedModel. Received: "
                f"saved_model={saved_model!r}"
            )
        if self._program is None:
            # Placeholders, until a file loads the SavedModel and its values.
            variables = self._known["variables"]
            self._track([np.zeros(v["shape"], v["dtype"]) for v in variables])
        self.built = True

    # --- The SavedModel ---

    def _find(self, path: Path) -> Path:
        """Returns a folder that exists as long as the layer."""
        borrowed = any(part.startswith(_PREFIX) for part in path.parts)
        if path.is_file():
            return self._extract(path)
        if not borrowed or not path.is_dir():
            return path
        # The folder is deleted with another layer, so copy it.
        shutil.copytree(path, folder := self._make_folder())
        return folder

    def _make_folder(self) -> Path:
        parent = tempfile.mkdtemp(prefix=_PREFIX)
        weakref.finalize(self, shutil.rmtree, parent, ignore_errors=True)
        return Path(parent) / "model"

    def _extract(self, archive: Path) -> Path:
        folder = self._make_folder()
        try:
            with tarfile.open(archive) as file:
                file.extractall(folder, filter="data")
        except (tarfile.TarError, OSError) as err:
            raise ValueError(
                "`saved_model` must be a folder or an archive (.tar.gz) with a "
                f"SavedModel. Received: saved_model={str(archive)!r}: {err}"
            ) from err
        files = sorted(folder.rglob(FILE), key=lambda f: len(f.parts))
        return files[0].parent if files else folder

    @property
    def takes(self) -> tf.TensorSpec:
        """Shape, batch included, and dtype of the input of the SavedModel."""
        import tensorflow as tf

        return tf.TensorSpec(
            self._known["input_shape"], self._known["input_dtype"]
        )

    def _take(self, folder: Path) -> None:
        """Loads the SavedModel; its variables become those of the layer."""
        program = read_program(folder, self._signature)
        self._check_modes(program)
        values = [*program.trainable, *program.frozen]
        if not self._known:
            self._known = self._describe(program, folder)
        if self._weights_of():
            for variable, value in zip(self._weights_of(), values, strict=True):
                value.assign(variable.value)
                # Keep the variable object, which an optimizer may hold, but
                # let it use the memory that the SavedModel reads.
                variable.value._handle = value.handle
        else:
            self._track(values)
        self._folder = folder
        # Bypasses Keras, which would track the contents of an attribute.
        object.__setattr__(self, "_program", program)

    def _check_modes(self, program: Program) -> None:
        if self._training_mode and True not in program.modes:
            raise ValueError(
                "`training_mode` must be False for a SavedModel that was not "
                "traced with `training=True`. Received: training_mode=True."
            )
        if program.modes == {True}:
            raise ValueError(
                "`saved_model` must hold a SavedModel with an inference mode. "
                "Received: one that was traced with `training=True` alone."
            )

    def _weights_of(self) -> list[keras.Variable]:
        return [*self._trainable_variables, *self._non_trainable_variables]

    def _track(self, values: Sequence[Any]) -> None:
        """Adds weights that wrap the given variables, or hold the arrays."""
        for item, value in zip(self._known["variables"], values, strict=True):
            self._track_variable(
                keras.Variable(
                    value,
                    dtype=item["dtype"],
                    trainable=item["trainable"],
                    autocast=False,
                    name=item["name"],
                )
            )

    def _describe(self, program: Program, folder: Path) -> dict[str, Any]:
        learns = {id(v) for v in program.trainable}
        values = [*program.trainable, *program.frozen]
        names = _names([value.name for value in values])
        spec = program.spec
        shape = self._infer(program, spec.shape)
        if not shape or shape[0] is not None:
            raise ValueError(
                "`saved_model` must hold a SavedModel that returns a row for "
                f"each row of a batch. Received: output shape {shape} for "
                f"input shape {spec.shape}."
            )
        input_shape = None if spec.shape.rank is None else spec.shape.as_list()
        return {
            "digest": digest_folder(folder),
            "input_shape": input_shape,
            "input_dtype": spec.dtype.name,
            "output_shape": list(shape)[1:],
            "variables": [
                {
                    "name": name,
                    "shape": list(value.shape),
                    "dtype": value.dtype.name,
                    "trainable": id(value) in learns,
                }
                for name, value in zip(names, values, strict=True)
            ],
        }

    # --- Keras ---

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Runs the SavedModel, in inference mode if the layer is frozen."""
        program = self._program
        if program is None:
            raise ValueError(
                f"Layer {self.name!r} must have its SavedModel. Received: a "
                "layer made from a config alone, whose folder is deleted. Load "
                "the whole `.keras` file with `keras.models.load_model`."
            )
        learns = bool(training) and self.trainable and self._training_mode
        outputs = self._run(program, inputs, learns)
        if self.trainable:
            for loss in program.losses:
                self.add_loss(loss())
        return keras.ops.cast(outputs, self.compute_dtype)

    def _run(self, program: Program, inputs: Any, learns: bool) -> Any:
        import tensorflow as tf

        if inputs.dtype != program.spec.dtype:
            inputs = tf.cast(inputs, program.spec.dtype)
        if program.input_name is not None:
            outputs = program.function(**{program.input_name: inputs})
        elif program.modes:
            outputs = program.function(inputs, training=learns)
        else:
            outputs = program.function(inputs)
        return self._choose(outputs)

    def _choose(self, outputs: Any) -> Any:
        if not isinstance(outputs, Mapping):
            if self._output is not None or isinstance(outputs, list | tuple):
                count = "one tensor"
                if isinstance(outputs, list | tuple):
                    count = f"{len(outputs)} tensors without names"
                raise ValueError(
                    "`output` must be None for a SavedModel with one output, "
                    "and several outputs must have names. Received: "
                    f"output={self._output!r}, and {count}."
                )
            return outputs
        if self._output is None and len(outputs) == 1:
            return next(iter(outputs.values()))
        if self._output not in outputs:
            raise ValueError(
                "`output` must be the name of an output, one of "
                f"{', '.join(map(repr, sorted(outputs)))}. Received: "
                f"output={self._output!r}"
            )
        return outputs[self._output]

    def _infer(self, program: Program, shape: Any) -> tuple[int | None, ...]:
        import tensorflow as tf

        @tf.function(autograph=False)
        def run(inputs: tf.Tensor) -> tf.Tensor:
            return self._run(program, inputs, False)

        spec = tf.TensorSpec(shape, program.spec.dtype)
        outputs = run.get_concrete_function(spec).structured_outputs
        if not isinstance(outputs, tf.Tensor):
            raise ValueError(
                "`saved_model` must hold a SavedModel whose outputs are dense "
                f"tensors. Received: {type(outputs).__name__}."
            )
        return tuple(outputs.shape) if outputs.shape.rank else ()

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Returns the output shape of an input shape, batch included."""
        if self._program is None:
            return (input_shape[0], *self._known["output_shape"])
        return self._infer(self._program, input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, and a description of the SavedModel."""
        return {
            **super().get_config(),
            "saved_model": None if self._folder is None else str(self._folder),
            "signature": self._signature,
            "output": self._output,
            "training_mode": self._training_mode,
            "known": self._known,
        }

    def save_assets(self, inner_path: str) -> None:
        """Writes the SavedModel into a `.keras` file."""
        if self._folder is None:
            raise ValueError(
                f"Layer {self.name!r} must have its SavedModel to be saved. "
                "Received: a layer made from a config alone."
            )
        shutil.copytree(self._folder, inner_path, dirs_exist_ok=True)

    def load_assets(self, inner_path: str) -> None:
        """Reads the SavedModel from a `.keras` file."""
        if self._program is not None:
            return
        shutil.copytree(inner_path, folder := self._make_folder())
        self._take(folder)


def _names(paths: list[str]) -> list[str]:
    """Returns names for variables: unique, stable and without slashes."""
    names: list[str] = []
    for path in paths:
        name = base = path.partition(":")[0].replace("/", ".")
        count = 1
        while name in names:
            count += 1
            name = f"{base}_{count}"
        names.append(name)
    return names
