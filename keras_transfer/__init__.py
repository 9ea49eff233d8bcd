"""Transfer learning with Keras 3: adapt a pretrained network to your own data.

Every public name is imported from its module the first time it is used, so that
`import keras_transfer` is instant and imports neither TensorFlow nor Keras.
"""

from typing import TYPE_CHECKING

from keras_transfer._utils.lazy import importing as _importing

if TYPE_CHECKING:
    from keras_transfer.backbones import (
        Backbone,
        list_backbones,
        load_backbone,
        load_text_backbone,
    )
    from keras_transfer.builders import (
        build_classifier,
        build_regressor,
        build_text_classifier,
        load_model,
    )
    from keras_transfer.caching.store import (
        FeatureStore,
    )
    from keras_transfer.data import (
        Augmentation,
        load_images,
        load_texts,
    )
    from keras_transfer.distribute import (
        connect_workers,
        predict_scaling,
    )
    from keras_transfer.doctor import (
        check,
    )
    from keras_transfer.experiments import (
        compare_transfer,
        cross_validate,
    )
    from keras_transfer.features import (
        FeatureExtractor,
        Features,
        FeatureSplit,
        cluster,
        extract_features,
        fit_probe,
        stack_features,
    )
    from keras_transfer.optimizers import (
        LearningRateMultiplier,
        block_multipliers,
        layer_decay,
    )
    from keras_transfer.penalties import (
        BSS,
        L1,
        L2,
        L2SP,
        ElasticNet,
        FeatureMap,
    )
    from keras_transfer.schedules import (
        one_cycle,
    )
    from keras_transfer.selection import (
        rank_backbones,
    )
    from keras_transfer.strategies import (
        LPFT,
        FineTune,
        FromScratch,
        GradualUnfreezing,
        LinearProbe,
        Phase,
        Surgical,
    )
    from keras_transfer.structure.class_names import (
        class_names,
    )
    from keras_transfer.structure.depth import (
        blocks,
        freeze,
        split,
        trainable_summary,
        unfreeze,
    )
    from keras_transfer.structure.lora import (
        add_lora,
    )
    from keras_transfer.training import (
        Run,
        find_learning_rate,
        fine_tune,
        plan,
    )
    from keras_transfer.tuning import (
        SearchResult,
        SearchSpace,
        search,
    )

__version__ = "0.1.0"


__all__ = [
    "add_lora",
    "Augmentation",
    "Backbone",
    "block_multipliers",
    "blocks",
    "BSS",
    "build_classifier",
    "build_regressor",
    "build_text_classifier",
    "check",
    "class_names",
    "cluster",
    "compare_transfer",
    "connect_workers",
    "cross_validate",
    "ElasticNet",
    "extract_features",
    "FeatureExtractor",
    "FeatureMap",
    "Features",
    "FeatureSplit",
    "FeatureStore",
    "find_learning_rate",
    "fine_tune",
    "FineTune",
    "fit_probe",
    "freeze",
    "FromScratch",
    "GradualUnfreezing",
    "L1",
    "L2",
    "L2SP",
    "layer_decay",
    "LearningRateMultiplier",
    "LinearProbe",
    "list_backbones",
    "load_backbone",
    "load_images",
    "load_model",
    "load_text_backbone",
    "load_texts",
    "LPFT",
    "one_cycle",
    "Phase",
    "plan",
    "predict_scaling",
    "rank_backbones",
    "Run",
    "search",
    "SearchResult",
    "SearchSpace",
    "split",
    "stack_features",
    "Surgical",
    "trainable_summary",
    "unfreeze",
]


_MODULES = {
    "add_lora": "structure.lora",
    "Augmentation": "data",
    "Backbone": "backbones",
    "block_multipliers": "optimizers",
    "blocks": "structure.depth",
    "BSS": "penalties",
    "build_classifier": "builders",
    "build_regressor": "builders",
    "build_text_classifier": "builders",
    "check": "doctor",
    "class_names": "structure.class_names",
    "cluster": "features",
    "compare_transfer": "experiments",
    "connect_workers": "distribute",
    "cross_validate": "experiments",
    "ElasticNet": "penalties",
    "extract_features": "features",
    "FeatureExtractor": "features",
    "FeatureMap": "penalties",
    "Features": "features",
    "FeatureSplit": "features",
    "FeatureStore": "caching.store",
    "find_learning_rate": "training",
    "fine_tune": "training",
    "FineTune": "strategies",
    "fit_probe": "features",
    "freeze": "structure.depth",
    "FromScratch": "strategies",
    "GradualUnfreezing": "strategies",
    "L1": "penalties",
    "L2": "penalties",
    "L2SP": "penalties",
    "layer_decay": "optimizers",
    "LearningRateMultiplier": "optimizers",
    "LinearProbe": "strategies",
    "list_backbones": "backbones",
    "load_backbone": "backbones",
    "load_images": "data",
    "load_model": "builders",
    "load_text_backbone": "backbones",
    "load_texts": "data",
    "LPFT": "strategies",
    "one_cycle": "schedules",
    "Phase": "strategies",
    "plan": "training",
    "predict_scaling": "distribute",
    "rank_backbones": "selection",
    "Run": "training",
    "search": "tuning",
    "SearchResult": "tuning",
    "SearchSpace": "tuning",
    "split": "structure.depth",
    "stack_features": "features",
    "Surgical": "strategies",
    "trainable_summary": "structure.depth",
    "unfreeze": "structure.depth",
}


__getattr__ = _importing(globals(), _MODULES)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
