"""Stock `transformers` BART and T5, made vision-and-language; the table of sites where PET attaches."""

from pet_bench.backbone.known import Backbone, Shape, find_backbone
from pet_bench.backbone.load import build, load
from pet_bench.backbone.model import VisionLanguageModel

__all__ = ["Backbone", "Shape", "VisionLanguageModel", "build", "find_backbone", "load"]
