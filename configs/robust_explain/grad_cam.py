"""Where VGG-16 looks, by Grad-CAM, on ImageNet.

    python train.py --config=configs/robust_explain/grad_cam.py:BOXES --workdir=workdirs/grad_cam
    python evaluate.py --workdir=workdirs/grad_cam

Selvaraju et al., Grad-CAM, 2017: maps of the last convolution, threshold 15 %, localisation error
and the pointing game. BOXES is a folder of parquet files; see `configs/parts/localised.py`. The
paper starts from trained weights: set `init_from`.

`small` is a CNN on scenes of 32 pixels, `small,biased` the same where backgrounds give the class
away; half a minute.
"""

from configs.parts import localised
from vision.core.config import spec
from vision.core.schema import ConfigError
from vision.evaluators.attribution import Gradient
from vision.methods.robust_explain.grad_cam import GradCam


def get_config(mode: str = "ilsvrc_boxes"):
    if mode in ("small", "small,biased"):
        maps = {
            "cam": spec(GradCam, site="block02"),
            "guided_cam": spec(GradCam, site="block02", guided=True),
            "gradient": spec(Gradient),
        }
        return localised.small(maps, biased=mode == "small,biased", steps=8)
    if mode.startswith("small"):
        raise ConfigError(f"{mode!r}: small, small,biased, or a folder")
    maps = {
        "cam": spec(GradCam, site="block11"),
        "guided_cam": spec(GradCam, site="block11", guided=True),
        "gradient": spec(Gradient),
    }
    return localised.large(mode, maps)
