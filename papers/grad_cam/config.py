"""Where VGG-16 looks, by Grad-CAM, on ImageNet.

    python train.py --config=papers/grad_cam/config.py:BOXES --workdir=workdirs/grad_cam
    python evaluate.py --workdir=workdirs/grad_cam

Selvaraju et al., Grad-CAM, 2017: maps of the last convolution, threshold 15 %, localisation error
and the pointing game. BOXES is a folder of parquet files; see `configs/parts/localised.py`. The
paper starts from trained weights: set `init_from`.

`small` is a CNN on scenes of 32 pixels, `small,biased=true` the same where backgrounds give the
class away; half a minute.
"""

import vision as v
from configs.parts import localised
from papers.grad_cam.method import GradCam
from vision import spec
from vision.evaluators.attribution import Gradient


def get_config(boxes: str = "ilsvrc_boxes") -> v.Config:
    return localised.large(boxes, maps("block11"))


def small(biased: bool = False) -> v.Config:
    return localised.small(maps("block02"), biased=biased, steps=8)


def maps(site):
    return {
        "cam": spec(GradCam, site=site),
        "guided_cam": spec(GradCam, site=site, guided=True),
        "gradient": spec(Gradient),
    }
