"""Any tuner of Hugging Face's peft library that works inside of a backbone, as the method `peft:<type>`."""

from __future__ import annotations

import json
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import MISSING, field, fields, make_dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import peft
import torch
from peft import PeftConfig, PeftModel, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.adamss.layer import AdamssLayer
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.poly import Linear as PolyLinear
from peft.tuners.tuners_utils import BaseTunerLayer, _maybe_include_all_linear_layers, check_target_module_exists
from peft.utils import ModulesToSaveWrapper
from pydantic import AfterValidator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.errors import UserError, shortened, unknown
from pet_bench.pet import Builder, Design, Door, Method, tied_modules
from pet_bench.registry import FAMILIES
from pet_bench.spec import STRICT, distinct

ADAPTER = "peft"  # peft's name for the adapter: part of every parameter's name, and of the exported folder's
TYPES = {kind.value.lower(): kind for kind in PeftType}
PROMPTS = {"prompt_tuning", "p_tuning"}
REFUSED = {
    "adaption_prompt": "peft has it for plain LLaMA decoders only; use prefix-tuning, whose keys are learned too",
    "cartridge": "its keys and values come from a text that was read before, through peft's own forward pass",
    "cpt": "its prompt is a text with labels of its own, in peft's own forward pass and loss",
    "lily": "it averages its routers over a batch and all positions, so that the decoder reads words yet to come",
    "multitask_prompt_tuning": "it needs peft's own forward pass; use prompt-tuning with per_task",
    "prefix_tuning": "its prefixes enter through the cache of peft's own forward pass; use prefix-tuning",
    "shadow": "its second network runs beside the whole model, in peft's own forward pass and loss",
    "xlora": "it mixes LoRA adapters that were trained before, in peft's own forward pass",
}
USABLE = tuple(sorted(TYPES.keys() - REFUSED.keys()))
# What says where an adapter is from and what it is put into.
ABOUT = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers", "progressbar",
}  # fmt: skip
# What the trial itself decides, and what needs data, a quantised model or another library before training.
NO_OPTION = ABOUT | {
    "megatron_config", "megatron_core", "runtime_config", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "velora_config", "monteclora_config", "arrow_config", "kasa_config", "use_bdlora",
    "alora_invocation_tokens", "layer_replication", "runtime_offload_base_weight", "use_qalora", "qalora_group_size",
}  # fmt: skip
LEARNED = {"rank_pattern", "total_step", "r"}  # of AdaLoRA, taken with its tensors
NO_OPTION_OF = {"adalora": {"r", "use_dora", "rank_pattern", "total_step"}}
NEEDS_DATA = {"eva", "corda", "loftq", "lora_ga"}  # initialisations of LoRA
MOVED = {"c3a", "fourierft", "unilora", "vblora"}  # by where peft's defaults start
NEARLY_AT_START = {"adamss", "deft", "frod", "hra", "osf"}  # up to rounding: what they factorise or rotate
STARTS = ("init", "use_dora", "ab_svd_init")  # options, or what their names begin with, that say where one starts
READS_VALUES = {"adamss", "boft", "frod", "shira", "unilora"}  # while attaching: the meta device has none
ADALORA_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")
ADAMSS_IMPORTANCE = ("exp_avg_ipt_A", "exp_avg_ipt_B", "exp_avg_unc_A", "exp_avg_unc_B")
PROMPTS_AND_IMAGES = (  # in peft's forward pass: Qwen's axes of image positions become one, two-way masks causal
    "prompts before words that images stand among would change the positions and the masks of the images"
)
UNKNOWN_YET = 2**62  # AdaLoRA's number of updates, until the first one


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn whatever peft raises into one line, and keep its advice to itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {type(error).__name__ if not str(error) else error}") from error


@dataclass(frozen=True, config=STRICT)
class PeftDoor(Door):
    """`peft.get_peft_model` on the backbone: peft's layers take the place of the layers that they adapt.

    type: of peft, in lower case. options: fields of that type's configuration. Prompts (`prompt_tuning`, `p_tuning`)
    stand before the encoder's text as in peft's own forward pass: BART's positions start at the prompt.
    """

    kind: ClassVar = ADAPTER
    type: Literal[USABLE]  # pyright: ignore[reportInvalidTypeForm]  those of the peft that is installed
    options: dict[str, Any]

    @property
    def formula(self) -> str:
        targets = self.options.get("target_modules")
        where = f" on {', '.join([targets] if isinstance(targets, str) else targets)}" if targets else ""
        return f"{TYPES[self.type].value} of peft {peft.__version__}{where}"

    @property
    def reads_weights(self) -> bool:
        """peft has layers of its own around quantised ones for some types."""
        return self.type not in PROMPTS and find_spec(f"peft.tuners.{self.type}.bnb") is None

    def config(self, anatomy: Anatomy) -> Any:
        """peft's own configuration; raises UserError, with peft's reason, where the options do not make one."""
        what = f"peft:{self.type}"
        if self.options.get("init_lora_weights") in NEEDS_DATA:
            raise UserError(
                f'{what}: init_lora_weights "{self.options["init_lora_weights"]}" reads data before training'
            )
        one_stack = anatomy.reading == anatomy.writing
        given: dict[str, Any] = deepcopy(self.options) | {"task_type": "CAUSAL_LM" if one_stack else "SEQ_2_SEQ_LM"}
        if self.type == "adalora":
            given["total_step"] = UNKNOWN_YET
        if self.type in PROMPTS:
            given["num_transformer_submodules"] = 1  # of the stack that reads
        if self.type == "frod":
            given["progressbar"] = False
        with _said(what):
            return PEFT_TYPE_TO_CONFIG_MAPPING[TYPES[self.type]](**given)

    def open(self, build):
        config, lm, anatomy = self.config(build.anatomy), build.model.lm, build.anatomy
        what = f"peft:{self.type} on {anatomy.backbone}"
        if self.type in PROMPTS and "prompts" not in anatomy.offers:
            raise UserError(f"{what}: {PROMPTS_AND_IMAGES}")
        if self.type == "trainable_tokens" and not config.token_indices:
            raise UserError("peft:trainable_tokens: token_indices is missing: the rows of the word table that train")
        tied = tied_modules(lm)
        if self.type == "trainable_tokens":
            _check_tables(what, lm)
        with _said(what), _values(lm, self.type in READS_VALUES):
            _narrow(config, lm, anatomy)
            wrapper = peft.get_peft_model(lm, config, ADAPTER)
        for path, module in lm.named_modules():
            copied = module.original_module if isinstance(module, ModulesToSaveWrapper) else None
            copied = module.base_layer if isinstance(module, LNTuningLayer) else copied
            if copied is not None and not tied.isdisjoint(copied.modules()):
                raise UserError(
                    f"{what}: a copy of {path} would train, and its weights are tied: the word table is one for all "
                    "that reads words and the output layer"
                )
            if isinstance(module, ModulesToSaveWrapper):
                module.original_module = nn.Identity()  # nobody turns the adapter off, and it would seem to train
        if out := sorted(name for name in self.trained(build.model) if anatomy.part_of(name) not in anatomy.scope):
            raise UserError(f"{what}: {out[0]} would train, which is not in the scope {', '.join(anatomy.scope)}")
        table, read = lm.get_input_embeddings(), build.model.at(anatomy.embeddings[0])
        unread = not isinstance(read, BaseTunerLayer) or self.type != "trainable_tokens"
        if table is not read and isinstance(table, BaseTunerLayer) and unread:  # those tokens are one layer everywhere
            raise UserError(
                f"peft:{self.type}: no word is read through the module shared; target embed_tokens, "
                "without ensure_weight_tying"
            )
        if Path(lm.name_or_path).exists():
            config.base_model_name_or_path = anatomy.backbone  # a folder is nobody else's
        if self.type in PROMPTS:
            prompt = Prompt(wrapper, build.model.at(anatomy.stacks[anatomy.reading].path))
            build.model.text_edits.append(prompt)
            return prompt
        if self.type == "poly":
            _tell_tasks(build, config.n_tasks)
        return Wrapped(wrapper)

    def trained(self, model):
        return {f"lm.{name}" for name, parameter in model.lm.named_parameters() if parameter.requires_grad}

    def penalty(self, model):
        """AdaLoRA's: orth_reg_weight times the mean over its A (r, d_in) and B (d_out, r) of ‖A Aᵀ - I‖, ‖Bᵀ B - I‖."""
        if self.type != "adalora":
            return 0.0
        grams = [
            p @ p.T if "lora_A" in name else p.T @ p
            for name, p in model.lm.named_parameters()
            if "lora_A" in name or "lora_B" in name
        ]
        apart = [torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
        return wrapped(model).active_peft_config.orth_reg_weight * torch.stack(apart).mean()

    def after_step(self, model, step, total):
        """Ranks (AdaLoRA) and subspaces (AdaMSS) are shared out anew."""
        tuner = wrapped(model).base_model
        if not hasattr(tuner, "update_and_allocate"):
            return
        if self.type == "adalora" and step == 1:
            config = wrapped(model).active_peft_config
            if config.tinit >= total - config.tfinal:
                raise UserError(
                    f"peft:adalora: tinit {config.tinit} and tfinal {config.tfinal} leave no update of {total} between"
                )
            tuner.rankallocator.set_total_step(total)
        tuner.update_and_allocate(step)

    def state(self, model):
        """The importance that ranks (AdaLoRA) or subspaces (AdaMSS) are shared out by, and how they are at present."""
        tuner = wrapped(model).base_model
        if self.type == "adalora":
            config, allocator = wrapped(model).active_peft_config, tuner.rankallocator
            importance = {name: getattr(allocator, name) for name in ADALORA_IMPORTANCE}
            return {"importance": importance, "ranks": config.rank_pattern, "total": config.total_step}
        if self.type == "adamss":
            return {"importance": _adamss_importance(tuner), "trained": sorted(self.trained(model))}
        return {}

    def restore(self, model, state):
        tuner, device = wrapped(model).base_model, next(model.parameters()).device
        if self.type == "adalora":
            config, allocator = wrapped(model).active_peft_config, tuner.rankallocator
            config.rank_pattern, config.total_step = state["ranks"], state["total"]
            for name, tensors in state["importance"].items():
                setattr(allocator, name, {key: tensor.to(device) for key, tensor in tensors.items()})
        if self.type == "adamss":
            for path, lists in _adamss_importance(tuner).items():
                for name, tensors in lists.items():
                    tensors[:] = [None if t is None else t.to(device) for t in state["importance"][path][name]]
            for name, parameter in model.lm.named_parameters():
                parameter.requires_grad_(f"lm.{name}" in state["trained"])

    def export(self, model, folder):
        """`folder/peft` as `peft.PeftModel.from_pretrained` reads it; the visual embedding is not in it."""
        wrapped(model).save_pretrained(str(folder), save_embedding_layers=False)
        Path(folder, "README.md").unlink()  # peft's empty model card

    def take(self, model, folder):
        load_exported(model, folder)


def _adamss_importance(tuner: nn.Module) -> dict[str, dict[str, list[Tensor | None]]]:
    """AdaMSS's own lists by layer, one entry a subspace."""
    layers = {path: layer for path, layer in tuner.named_modules() if isinstance(layer, AdamssLayer)}
    return {
        path: {name: getattr(layer, name)[ADAPTER] for name in ADAMSS_IMPORTANCE if ADAPTER in getattr(layer, name)}
        for path, layer in layers.items()
    }


class Wrapped(nn.Module):
    """Keeps the peft model, without owning it: its parameters are the backbone's."""

    def __init__(self, wrapper: PeftModel):
        super().__init__()
        self.wrapper = (wrapper,)


class Prompt(Wrapped):
    """peft's prompt encoder before the text of the stack that reads."""

    def __init__(self, wrapper: PeftModel, stack: nn.Module):
        super().__init__(wrapper)
        self.stack = (stack,)
        self.encoder = wrapper.prompt_encoder[ADAPTER]

    def forward(self, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """words (B, L, d), mask (B, L) → both with the prompt before them."""
        wrapper: Any = self.wrapper[0]
        prompt = wrapper.get_prompt(batch_size=len(words)).to(words.dtype)
        length, text = prompt.shape[1], words.shape[1]
        stack: Any = self.stack[0]
        if hasattr(stack, "embed_positions"):
            positions = stack.embed_positions(mask.new_zeros(1, length + text))
            words = words + (positions[:, length:] - positions[:, :text])
            prompt = prompt + positions[:, :length]
        return torch.cat([prompt, words], dim=1), torch.cat([mask.new_ones(prompt.shape[:2]), mask], dim=1)


def wrapped(model: Any) -> Any:
    """The `PeftModel` around the backbone of a model with an opened `PeftDoor`."""
    return model.pet[PeftDoor.kind].wrapper[0]


def load_exported(model: nn.Module, folder: Path) -> None:
    """Load what `PeftDoor.export` wrote (`<folder>/adapter_config.json` …) into a model with the same method attached.

    Values may be of any floating type, as adapters are saved in halves too. Raises UserError where the folder is
    unreadable, holds another type, does not fit, or a value is not finite.
    """
    wrapper, what = wrapped(model), f"{folder}"
    config = wrapper.active_peft_config
    if config.peft_type == PeftType.P_TUNING:
        raise UserError(f"{what}: peft exports the prompts of p_tuning without the network that the method trains")
    with _said(what):
        saved: Any = PeftConfig.from_pretrained(str(folder))
        weights = peft.load_peft_weights(str(folder), device=str(wrapper.device))
    if saved.peft_type != config.peft_type:
        raise UserError(f"{what} holds {saved.peft_type.value}, expected {config.peft_type.value}")
    own = peft.get_peft_model_state_dict(wrapper, adapter_name=ADAPTER, save_embedding_layers=False)
    if apart := sorted(own.keys() ^ weights.keys()):
        raise UserError(f"{what} does not fit: {', '.join(apart[:3])}")
    whole = [name for name in weights if own[name].is_floating_point() and not weights[name].is_floating_point()]
    faults = [f"{what}: {name} is of type {weights[name].dtype}, expected a floating one" for name in whole]
    faults += [
        f"{what}: {name} has values that are not finite" for name in weights if not weights[name].isfinite().all()
    ]
    if faults:
        raise UserError.many(sorted(faults)[:20])
    if config.peft_type == PeftType.ADALORA:
        config.rank_pattern = saved.rank_pattern
    with _said(what):
        peft.set_peft_model_state_dict(wrapper, weights, ADAPTER)


def _narrow(config: Any, lm: Any, anatomy: Anatomy) -> None:
    """Of the modules that peft would adapt, those of the language model and in the layers of the tower, by the scope.

    peft looks for names everywhere, and a vision tower calls its layers as a language model does; "all-linear" means
    the projector too, and layers of the tower that nobody reads. Raises UserError where none is left.
    """
    targets = getattr(config, "target_modules", None)
    if "vision" not in anatomy.stacks or not targets:
        return
    _maybe_include_all_linear_layers(config, lm)
    parts = {path: anatomy.part_of(f"lm.{path}") for path, _ in lm.named_modules()}
    tower = anatomy.stacks["vision"]  # what it has besides the layers that are read runs for nothing
    read = tuple(f"{tower.blocks.format(i=tower.name_of(layer))}." for layer in range(tower.layers))
    named = [path for path in parts if check_target_module_exists(config, path)]
    reached = [path for path in named if parts[path] == "language" or f"lm.{path}".startswith(read)]
    inside = [path for path in reached if parts[path] in anatomy.scope]
    if named and not inside:
        apart = ", ".join(dict.fromkeys(parts[path] for path in reached))
        scope = ", ".join(anatomy.scope)
        raise UserError(
            f"target_modules are in {apart}, which is not in the scope {scope}" if apart
            else "target_modules are in no layer of the language model or of the tower that is read"
        )  # fmt: skip
    config.target_modules = set(inside) or targets
    forward = getattr(config, "feedforward_modules", None)
    if isinstance(forward, set):  # a subset of the targets, as peft will have it
        config.feedforward_modules = {p for p in inside if any(f".{p}".endswith(f".{name}") for name in forward)}


def _check_tables(what: str, lm: nn.Module) -> None:
    """peft looks its tokens' rows up itself. Raises UserError where the table gives more than rows, as T5Gemma 2's."""
    for path, table in lm.named_modules():
        if isinstance(table, nn.Embedding) and (more := [n for n, _ in table.named_parameters() if n != "weight"]):
            raise UserError(f"{what}: {path} reads {more[0]} besides its rows, which peft's layer would leave out")


@contextmanager
def _values(lm: Any, needed: bool) -> Iterator[None]:
    """Random weights for a moment, where a model without any is about to be read."""
    if not needed or not next(lm.parameters()).is_meta:
        yield
        return
    lm.to_empty(device="cpu")
    lm.tie_weights()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    try:
        with torch.device("cpu"):
            yield
    finally:
        lm.to("meta")
        lm.tie_weights()


def _tell_tasks(build: Builder, n_tasks: int) -> None:
    """Poly's layers ask for every example's task: here the batch's, or one for all where n_tasks is 1."""
    tasks, context = build.tasks, build.context
    if n_tasks not in (1, len(tasks)):
        raise UserError(f"peft:poly: n_tasks must be 1 or the number of tasks, {len(tasks)}; found {n_tasks}")

    def tell(module, args, kwargs):
        task = 0 if n_tasks == 1 else tasks.index(context.task_among(tasks))
        return args, kwargs | {"task_ids": torch.full((len(args[0]),), task, device=args[0].device)}

    for module in build.model.lm.modules():
        if isinstance(module, PolyLinear):
            module.register_forward_pre_hook(tell, with_kwargs=True)


class Peft(Method):
    """A tuner of the peft library in the frozen backbone; the options are those of peft's configuration class.

    target_modules: by default as peft has it for the family, or else the query and value projections (IA3: keys, values
    and what leaves feed-forwards; LN tuning: the norms in front of sub-layers), of the stacks in the scope alone: the
    tower of a vision-language model where that names it, the projector, which trains whole, never. Options that
    need data, a quantised model or peft's own trainer before or beside training are left out. No learning rate is
    published for this set-up: the rates of the mini backbones are LoRA's, elsewhere the recipe must give one.
    Deliberate difference: the visual embedding trains too, as in every method here.
    """

    name: ClassVar = "peft:"
    source: ClassVar = f"PEFT (Mangrulkar et al., 2022), version {peft.__version__}"
    year: ClassVar = 2022
    learning_rates: ClassVar = {"mini-bart": 2e-3, "mini-t5": 3e-3}
    type: ClassVar[str]

    @classmethod
    def variant(cls, name: str) -> type[Peft]:
        """The method of one type of peft; raises UserError for one that there is not or that cannot work here."""
        name = name.lower()
        if name not in TYPES:
            raise unknown("peft type", name, USABLE)
        if name in REFUSED:
            raise UserError(f"peft:{name} cannot be used here: {REFUSED[name]}")
        return _variant(name)

    @classmethod
    def defaults(cls, anatomy):
        last = anatomy.leaves(f"{site}.out" for site in anatomy.sub_layers if site.endswith("ffn"))
        given = {}
        if cls.type not in PROMPTS | {"trainable_tokens"}:
            given["target_modules"] = _targets(cls.type, anatomy, last)
        if cls.type == "ia3":
            given["feedforward_modules"] = [name for name in given["target_modules"] if name in last]
        if cls.type == "shira":
            given["random_seed"] = 0  # the mask must be the same when the trained tensors are loaded
        return given

    @classmethod
    def options_of(cls, config: dict[str, Any]) -> dict[str, Any]:
        """The options of an adapter that peft saved, of its `adapter_config.json`.

        Raises UserError for what is no option here and yet set: the adapter would not be what was trained.
        """
        known, own = {option.name: option for option in fields(_config_class(cls.type))}, fields(cast(Any, cls))
        options = {option.name: config[option.name] for option in own if option.name in config}
        rest = {key: value for key, value in config.items() if key not in options.keys() | ABOUT}
        starts = {key: option.default for key, option in known.items() if key in rest}
        faults = [
            f"{cls.name}: {key} is {shortened(json.dumps(value))}, which cannot be had here"
            for key, value in rest.items()
            if value and value != starts.get(key) and key not in LEARNED
        ]
        if faults:
            raise UserError.many(faults)
        return options

    @property
    def identity_at_start(self):  # pyright: ignore[reportIncompatibleVariableOverride]  type and options decide
        """Of peft's own start alone: of others, as LoRA's PiSSA, nothing is claimed."""
        own = {option.name: option.default for option in fields(cast(Any, self)) if option.name.startswith(STARTS)}
        asis = all(getattr(self, name) == default for name, default in own.items())
        return asis and self.type not in MOVED | NEARLY_AT_START | PROMPTS

    def skip(self, anatomy):
        if self.type in PROMPTS and "prompts" not in anatomy.offers:
            return PROMPTS_AND_IMAGES
        if getattr(self, "target_modules", None) == []:
            return "the backbone has no layer that is its target by default: give target_modules"
        return None if anatomy.adapted else "it adapts the language model or the vision tower, neither in the scope"

    def design(self, anatomy):
        options = {option.name: getattr(self, option.name) for option in fields(cast(Any, self))}
        door = PeftDoor(self.type, options)
        door.config(anatomy)
        return Design(doors=(door,))


def _targets(kind: str, anatomy: Anatomy, last: list[str]) -> list[str]:
    """The names of the layers that a type adapts by default."""
    known = getattr(PEFT_TYPE_TO_TUNER_MAPPING[TYPES[kind]], "target_module_mapping", {})
    side_by_side = anatomy.reading != anatomy.writing and "vision" not in anatomy.stacks  # queries and values, as ever
    if anatomy.family in known and "vision" not in anatomy.stacks:  # else peft knows the language model alone
        return sorted(known[anatomy.family])
    if kind == "ia3" and not side_by_side:
        return sorted({*anatomy.leaves(anatomy.projections(("key", "value"))), *last})
    if kind == "ln_tuning" and not side_by_side:
        names = {(anatomy.sites[name].reader or "").rpartition(".")[2] for name in anatomy.sub_layers}
        if "language" in anatomy.scope:
            names |= {*known.get(FAMILIES.get(anatomy.family).language, ())}  # of one that is post-norm
        return sorted(name for name in names if "norm" in name)
    return anatomy.leaves(anatomy.projections(("query", "value")))


def _config_class(name: str) -> Any:
    return PEFT_TYPE_TO_CONFIG_MAPPING[TYPES[name]]


@cache
def _variant(name: str) -> type[Peft]:
    config = _config_class(name)
    hints = typing.get_type_hints(config)
    options = [
        (option.name, *_typed(hints[option.name], option.default, option.default_factory))
        for option in fields(config)
        if option.name not in NO_OPTION | NO_OPTION_OF.get(name, set())
    ]
    if name in PROMPTS:
        options = [
            ("num_virtual_tokens", int, field(default=20)),
            *(o for o in options if o[0] != "num_virtual_tokens"),
        ]
    space = {
        "__module__": __name__,
        "__doc__": f"{TYPES[name].value}: the options are those of peft.{config.__name__}.",
        "name": f"peft:{name}",
        "type": name,
    }
    cls = make_dataclass(config.__name__, options, bases=(Peft,), namespace=space, kw_only=True, frozen=True)
    return cast(type[Peft], dataclass(frozen=True, kw_only=True, config=STRICT)(cls))


def _each_once(value: Any) -> Any:
    names = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return distinct(value) if names else value


def _typed(hint: Any, default: Any, factory: Callable | Any) -> tuple[Any, Any]:
    """An option's type, None allowed where that is its default and no name listed twice, and its default."""
    hint = Annotated[hint, AfterValidator(_each_once)]
    if factory is not MISSING:
        return hint, field(default_factory=factory)
    return (hint | None if default is None else hint), field(default=default)
