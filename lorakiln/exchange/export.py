"""A recipe as sd-scripts' arguments and command, with a line for every setting that they cannot express."""

import shlex
from dataclasses import dataclass, field
from typing import Any

from lorakiln.base.settings import Recipe
from lorakiln.exchange.blocks import BLOCKS, SPATIAL
from lorakiln.exchange.export_pictures import pictures

OPTIMIZERS = {
    "adamw": "AdamW", "adamw8bit": "AdamW8bit", "prodigy": "Prodigy", "came": "pytorch_optimizer.CAME",
    "adafactor": "Adafactor", "lion": "Lion",
}  # fmt: skip
PRECISIONS = {"auto": "bf16", "bf16": "bf16", "fp16": "fp16", "fp32": "no"}
SAMPLERS = {"euler": "euler", "euler_a": "euler_a", "dpmpp_2m": "dpmsolver++"}


@dataclass
class Exported:
    """`arguments` of sdxl_train_network.py (true: a flag; a list: several words), `network` its network_args, the
    dataset tables where one folder is not enough, and `problems`: a line for each setting that is lost or changed."""

    arguments: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def lost(self, setting: str, value: Any, why: str) -> None:
        self.problems.append(f"{setting} = {value}: {why}")


def export(recipe: Recipe) -> Exported:
    """sd-scripts' arguments that train the same thing."""
    out = Exported()
    _top(recipe, out)
    _adapter(recipe, out)
    _optimizer(recipe, out)
    _schedule(recipe, out)
    _length(recipe, out)
    _loss(recipe, out)
    _files(recipe, out)
    _samples(recipe, out)
    pictures(recipe, out)
    return out


def command(out: Exported, dataset_file: str = "dataset.toml") -> str:
    """The command line, one argument a line."""
    words = ["accelerate launch --num_cpu_threads_per_process=2 sdxl_train_network.py"]
    arguments = dict(out.arguments)
    if out.network:
        arguments["network_args"] = [f"{name}={value}" for name, value in out.network.items()]
    if out.datasets:
        arguments["dataset_config"] = dataset_file
    for name, value in arguments.items():
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, list):
            words.append(f"--{name} {' '.join(shlex.quote(str(one)) for one in value)}")
        else:
            words.append(f"--{name}={shlex.quote(str(value))}")
    return " \\\n  ".join(words) + "\n"


def _top(recipe: Recipe, out: Exported) -> None:
    out.arguments |= {"pretrained_model_name_or_path": recipe.base, "output_dir": recipe.runs}
    out.arguments |= {"seed": recipe.seed, "no_half_vae": True}
    out.arguments["max_token_length"] = 225  # Kiln reads captions whole; this is the most there is
    if recipe.name:
        out.arguments["output_name"] = recipe.name
    if recipe.vae:
        out.arguments["vae"] = recipe.vae
    if recipe.init:
        out.arguments["network_weights"] = recipe.init
    if recipe.prediction == "v":
        out.arguments["v_parameterization"] = True
    if recipe.prediction == "auto":
        out.lost("prediction", "'auto'", "sd-scripts asks no file: add --v_parameterization for a v model")
    if recipe.ztsnr == "on":
        out.arguments["zero_terminal_snr"] = True
    elif recipe.ztsnr == "auto" and recipe.prediction == "v":
        out.lost("ztsnr", "'auto'", "add --zero_terminal_snr if the base has it")


def _adapter(recipe: Recipe, out: Exported) -> None:
    adapter = recipe.adapter
    full = adapter.full_matrix
    out.arguments |= {"network_module": "networks.lora", "network_dim": adapter.rank, "network_alpha": adapter.alpha}
    for name in ("rank_dropout", "module_dropout"):
        if getattr(adapter, name):
            out.network[name] = getattr(adapter, name)
    attention = {"*_attn1_*", "*_attn2_*"}
    only_attention = bool(adapter.targets) and set(adapter.targets) - {"*_self_attn_*"} == attention
    lycoris = adapter.kind != "lora" or adapter.dora or adapter.tucker or adapter.rank_stabilised or only_attention
    if adapter.conv_rank and not full:
        out.network |= {"conv_dim": adapter.conv_rank, "conv_alpha": adapter.conv_alpha}
    if lycoris:
        out.arguments["network_module"] = "lycoris.kohya"
        preset = "attn-only" if only_attention else "full" if adapter.conv_rank else "attn-mlp"
        kind = "locon" if adapter.kind == "lora" else adapter.kind
        out.network = {"algo": kind, "preset": preset} | out.network
        switches = {"dora_wd": adapter.dora, "use_tucker": adapter.tucker, "rs_lora": adapter.rank_stabilised,
                    "full_matrix": full, "decompose_both": adapter.decompose_both}  # fmt: skip
        out.network |= {name: True for name, on in switches.items() if on}
        if adapter.dora:
            out.network["wd_on_output"] = adapter.dora_axis == "output"
        if adapter.kind == "lokr":
            out.network["factor"] = adapter.factor
    if adapter.targets and not only_attention:
        out.lost("adapter.targets", adapter.targets, "sd-scripts knows its own sets of layers only")
    if adapter.exclude:
        out.lost("adapter.exclude", adapter.exclude, "sd-scripts knows its own sets of layers only")
    if adapter.ranks:
        _blocks(recipe, out, lycoris)
    if recipe.optim.rates:
        _block_rates(recipe, out, lycoris)
    if recipe.optim.loraplus > 1:
        out.network["loraplus_lr_ratio"] = recipe.optim.loraplus


def _blocks(recipe: Recipe, out: Exported, lycoris: bool) -> None:
    """adapter.ranks as kohya's block_dims, where every pattern is one of its blocks or the convolutions of one."""
    adapter = recipe.adapter
    rules = {rule.pattern: rule for rule in adapter.ranks}
    spatial = {pattern: [pattern + end for end in ends] for pattern, ends in SPATIAL.items()}
    known = {pattern for pattern, _ in BLOCKS} | {one for ends in spatial.values() for one in ends}
    if lycoris or adapter.kind != "lora" or not rules.keys() <= known:
        out.lost("adapter.ranks", list(rules), "sd-scripts gives ranks to its 23 blocks only")
        return
    plain = [rules.get(pattern) for pattern, _ in BLOCKS]
    _dims(out, "", plain, [(adapter.rank, adapter.alpha)] * len(BLOCKS))
    if adapter.conv_rank:
        # a block's own rule holds for its convolutions too, unless one of theirs follows
        inside = [next((rules[one] for one in spatial.get(pattern, ()) if one in rules), None) for pattern, _ in BLOCKS]
        _dims(out, "conv_", [own or rule for own, rule in zip(inside, plain, strict=True)],
              [(adapter.conv_rank, adapter.conv_alpha)] * len(BLOCKS))  # fmt: skip


def _dims(out: Exported, prefix: str, rules: list[Any], others: list[tuple[int, float]]) -> None:
    pairs = [(rule.rank, rule.rank if rule.alpha is None else rule.alpha) if rule else other
             for rule, other in zip(rules, others, strict=True)]  # fmt: skip
    out.network[f"{prefix}block_dims"] = ",".join(str(rank) for rank, _ in pairs)
    out.network[f"{prefix}block_alphas"] = ",".join(f"{alpha:g}" for _, alpha in pairs)


def _block_rates(recipe: Recipe, out: Exported, lycoris: bool) -> None:
    rules = {rule.pattern: rule.factor for rule in recipe.optim.rates}
    if lycoris or not rules.keys() <= {pattern for pattern, _ in BLOCKS}:
        out.lost("optim.rates", list(rules), "sd-scripts gives rates to its blocks only")
        return
    factors = [rules.get(pattern, 1.0) for pattern, _ in BLOCKS]
    for name, first, count in (("down_lr_weight", 1, 9), ("mid_lr_weight", 10, 3), ("up_lr_weight", 13, 9)):
        out.network[name] = ",".join(f"{factor:g}" for factor in factors[first : first + count])


def _optimizer(recipe: Recipe, out: Exported) -> None:
    optim, options = recipe.optim, dict(recipe.optim.options)
    out.arguments["optimizer_type"] = OPTIMIZERS.get(optim.name, optim.name.removeprefix("torch.optim."))
    if optim.name == "adafactor":
        # its defaults there are the other way round: it would throw the learning rate away
        options = {"scale_parameter": False, "relative_step": False, "warmup_init": False} | options
        if {"eps1", "eps2"} & options.keys():
            options["eps"] = (options.pop("eps1", 1e-30), options.pop("eps2", 1e-3))
        if options["relative_step"] and (optim.lr not in (0, 1) or optim.text_lr not in (0, 1)):
            out.lost("optim.lr", optim.lr, "with relative_step sd-scripts throws the rate away")
    if options:
        out.arguments["optimizer_args"] = [f"{name}={_literal(value)}" for name, value in options.items()]
    out.arguments |= {"learning_rate": optim.lr or optim.text_lr, "max_grad_norm": optim.clip}
    if not optim.second_text_lr and not optim.text_lr:
        out.arguments |= {"unet_lr": optim.lr, "network_train_unet_only": True}
    elif not optim.lr:
        out.arguments |= {"network_train_text_encoder_only": True}
    else:
        out.arguments["unet_lr"] = optim.lr
    if optim.second_text_lr != optim.text_lr:
        out.arguments["text_encoder_lr"] = [optim.text_lr, optim.second_text_lr]
    elif optim.text_lr:
        out.arguments["text_encoder_lr"] = optim.text_lr


def _literal(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else repr(value)


def _schedule(recipe: Recipe, out: Exported) -> None:
    optim, options = recipe.optim, recipe.optim.schedule_options
    names = {"constant": "constant_with_warmup" if optim.warmup else "constant", "linear": "linear", "cosine": "cosine",
             "cosine_restarts": "cosine_with_restarts", "polynomial": "polynomial"}  # fmt: skip
    ratio = options.get("min_ratio", 0.0)
    if optim.schedule == "wsd":
        _falling(recipe, out)
        return
    if optim.schedule == "rex":
        _rex(recipe, out)
        return
    out.arguments["lr_scheduler"] = names[optim.schedule]
    if optim.name == "adafactor" and optim.options.get("relative_step"):
        out.arguments["lr_scheduler"] = "adafactor"  # its own, whatever is asked for
    if optim.schedule == "cosine" and ratio:
        out.arguments |= {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_min_lr_ratio": ratio}
    elif ratio:
        out.lost("optim.schedule_options.min_ratio", ratio, f"{names[optim.schedule]} falls to 0 there")
    if optim.schedule == "cosine_restarts":
        out.arguments["lr_scheduler_num_cycles"] = options.get("cycles", 2)
    if optim.schedule == "polynomial":
        out.arguments["lr_scheduler_power"] = options.get("power", 2.0)
    _warmup(recipe, out)


def _falling(recipe: Recipe, out: Exported) -> None:
    """Warm-up, stable, decay. The fall is a share of what follows the warm-up here, of the whole run there."""
    optim, options = recipe.optim, recipe.optim.schedule_options
    decay, steps = options.get("decay", 0.2), recipe.train.steps
    rise = optim.warmup if optim.warmup < 1 else optim.warmup / steps if steps else None
    out.arguments |= {"lr_scheduler": "warmup_stable_decay", "lr_scheduler_min_lr_ratio": options.get("min_ratio", 0.0)}
    _warmup(recipe, out)
    share = round(decay * (1 - (rise or 0.0)), 9)
    out.arguments["lr_decay_steps"] = share if share < 1 else steps or 0.999999
    if rise is None:
        out.lost("optim.schedule_options.decay", decay, "the share there counts the warm-up's steps too")
    out.lost("optim.schedule", "'wsd'", "its fall is a straight line, there a cosine")


def _rex(recipe: Recipe, out: Exported) -> None:
    """A class of pytorch_optimizer, which must be told the number of steps and has one rate for all."""
    optim, steps = recipe.optim, recipe.train.steps
    out.arguments["lr_scheduler"] = "cosine"
    one_rate = {optim.lr, optim.text_lr, optim.second_text_lr} - {0.0} == {optim.lr}
    if not steps or optim.warmup or not one_rate:
        why = "needs train.steps, one rate and no warm-up there" if steps else "there it must be told train.steps"
        out.lost("optim.schedule", "'rex'", f"{why}; the command says cosine")
        _warmup(recipe, out)
        return
    lowest = optim.lr * optim.schedule_options.get("min_ratio", 0.0)
    out.arguments["lr_scheduler_type"] = "pytorch_optimizer.lr_scheduler.rex.REXScheduler"
    out.arguments["lr_scheduler_args"] = [f"total_steps={steps}", f"max_lr={optim.lr}", f"min_lr={lowest}"]


def _warmup(recipe: Recipe, out: Exported) -> None:
    warmup = recipe.optim.warmup
    if warmup:
        out.arguments["lr_warmup_steps"] = warmup if warmup < 1 else int(warmup)


def _length(recipe: Recipe, out: Exported) -> None:
    train = recipe.train
    if train.steps:
        out.arguments["max_train_steps"] = train.steps
        if train.epochs < train.steps:
            out.lost("train.epochs", train.epochs, "sd-scripts stops at the steps, whatever the epochs")
    else:
        out.arguments["max_train_epochs"] = train.epochs
    out.arguments |= {"train_batch_size": train.batch, "gradient_accumulation_steps": train.accumulate}
    out.arguments["mixed_precision"] = PRECISIONS[train.precision]
    if train.precision == "auto":
        out.lost("train.precision", "'auto'", "the command says bf16")
    if train.adapter_precision != "fp32":
        out.lost("train.adapter_precision", repr(train.adapter_precision), "sd-scripts keeps it in fp32")
    if train.checkpointing:
        out.arguments["gradient_checkpointing"] = True


def _loss(recipe: Recipe, out: Exported) -> None:
    loss = recipe.loss
    names = {"min_snr_gamma": "min_snr_gamma", "noise_offset": "noise_offset",
             "multires_noise_iterations": "multires_levels", "ip_noise_gamma": "input_perturbation",
             "debiased_estimation_loss": "debiased", "min_timestep": "min_timestep"}  # fmt: skip
    out.arguments |= {argument: getattr(loss, name) for argument, name in names.items() if getattr(loss, name)}
    if loss.multires_levels:
        out.arguments["multires_noise_discount"] = loss.multires_discount
    if loss.max_timestep < 1000:
        out.arguments["max_timestep"] = loss.max_timestep
    out.arguments["loss_type"] = loss.kind
    if loss.kind in ("huber", "smooth_l1"):
        out.arguments |= {"huber_schedule": loss.huber_schedule, "huber_c": loss.huber_c}
    for name, every in (
        ("validate_every_n_epochs", recipe.judge.epochs),
        ("validate_every_n_steps", recipe.judge.steps),
    ):
        if every:
            out.arguments[name] = every
    if recipe.judge.stop:
        out.lost("judge.stop", f"'{recipe.judge.stop}'", "sd-scripts trains to its end")
    if loss.timesteps != "uniform":
        out.lost("loss.timesteps", f"'{loss.timesteps}'", "sd-scripts draws timesteps one by one")


def _files(recipe: Recipe, out: Exported) -> None:
    save = recipe.save
    out.arguments |= {"save_model_as": "safetensors",
                      "save_precision": {"fp32": "float"}.get(save.dtype, save.dtype)}  # fmt: skip
    if save.epochs:
        out.arguments["save_every_n_epochs"] = save.epochs
    if save.steps:
        out.arguments["save_every_n_steps"] = save.steps
    if save.keep and save.epochs:
        out.arguments["save_last_n_epochs"] = save.keep
    elif save.keep and save.steps:
        out.arguments["save_last_n_steps"] = (save.keep - 1) * save.steps
    if recipe.cache.latents != "off":
        out.arguments["cache_latents"] = True
        if recipe.cache.latents == "disk":
            out.arguments["cache_latents_to_disk"] = True


def _samples(recipe: Recipe, out: Exported) -> None:
    sample = recipe.sample
    if sample.file:
        out.arguments["sample_prompts"] = sample.file
    elif sample.prompts:
        out.arguments["sample_prompts"] = "prompts.txt"
    else:
        return
    for argument, value in (("sample_every_n_epochs", sample.epochs), ("sample_every_n_steps", sample.steps)):
        if value:
            out.arguments[argument] = value
    out.arguments |= {"sample_sampler": SAMPLERS[sample.sampler], "sample_at_first": True}


def prompt_lines(recipe: Recipe) -> str:
    """prompts.txt for sd-scripts: each prompt with the recipe's sizes, steps and guidance as flags."""
    sample, lines = recipe.sample, []
    for number, prompt in enumerate(sample.prompts):
        flags = {"n": sample.negative, "w": sample.width, "h": sample.height, "s": sample.count, "l": f"{sample.cfg:g}",
                 "d": sample.seed + number}  # fmt: skip
        added = [f"--{flag} {value}" for flag, value in flags.items() if value and f"--{flag} " not in f"{prompt} "]
        lines.append(" ".join([prompt, *added]))
    return "\n".join(lines) + "\n"
