"""A recipe as sd-scripts' arguments and command, with a line for every setting that they cannot express."""

import shlex
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import tomlkit

from lorakiln.base.settings import Dataset, Recipe
from lorakiln.exchange.blocks import BLOCKS
from lorakiln.exchange.pictures import CAPTIONS

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
    _pictures(recipe, out)
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


def dataset_file(out: Exported) -> str:
    """The dataset_config, where one is needed."""
    document = tomlkit.document()
    tables = tomlkit.aot()
    for table in out.datasets:
        dataset, subset = tomlkit.table(), tomlkit.table()
        dataset.update({key: value for key, value in table.items() if key in DATASET_LEVEL})
        subset.update({key: value for key, value in table.items() if key not in DATASET_LEVEL})
        subsets = tomlkit.aot()
        subsets.append(subset)
        dataset.add("subsets", subsets)
        tables.append(dataset)
    document.add("datasets", tables)
    return tomlkit.dumps(document)


DATASET_LEVEL = {"resolution", "batch_size", "enable_bucket", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso",
                 "bucket_no_upscale"}  # fmt: skip


def _top(recipe: Recipe, out: Exported) -> None:
    out.arguments |= {"pretrained_model_name_or_path": recipe.base, "output_dir": recipe.runs}
    out.arguments |= {"seed": recipe.seed, "no_half_vae": True}
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
    """adapter.ranks as kohya's block_dims, where every pattern is one of its blocks."""
    rules = {rule.pattern: rule for rule in recipe.adapter.ranks}
    if lycoris or not rules.keys() <= {pattern for pattern, _ in BLOCKS}:
        out.lost("adapter.ranks", list(rules), "sd-scripts gives ranks to its 23 blocks only")
        return
    default = recipe.adapter
    picked = [rules.get(pattern) for pattern, _ in BLOCKS]
    out.network["block_dims"] = ",".join(str(rule.rank if rule else default.rank) for rule in picked)
    alphas = [(rule.rank if rule.alpha is None else rule.alpha) if rule else default.alpha for rule in picked]
    out.network["block_alphas"] = ",".join(f"{alpha:g}" for alpha in alphas)


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
    if optim.schedule not in names:
        out.arguments["lr_scheduler"] = "cosine"
        out.lost("optim.schedule", f"'{optim.schedule}'", "sd-scripts has no such schedule; the command says cosine")
        return
    out.arguments["lr_scheduler"] = names[optim.schedule]
    if optim.schedule == "cosine" and ratio:
        out.arguments |= {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_min_lr_ratio": ratio}
    elif ratio:
        out.lost("optim.schedule_options.min_ratio", ratio, f"{names[optim.schedule]} falls to 0 there")
    if optim.schedule == "cosine_restarts":
        out.arguments["lr_scheduler_num_cycles"] = options.get("cycles", 2)
    if optim.schedule == "polynomial":
        out.arguments["lr_scheduler_power"] = options.get("power", 2.0)
    if optim.warmup:
        out.arguments["lr_warmup_steps"] = optim.warmup if optim.warmup < 1 else int(optim.warmup)


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


def _pictures(recipe: Recipe, out: Exported) -> None:
    """One folder as arguments, with prior pictures beside it; anything else as a dataset_config."""
    first, *others = recipe.dataset
    for one in recipe.dataset:
        if one.heldout:
            out.lost("dataset.heldout", f"{one.heldout:g}", "sd-scripts trains on every picture")
    table = _table(first, out)
    same = [
        {**_plain(other), "folder": "", "weight": 1.0} == {**_plain(first), "folder": "", "weight": 1.0}
        for other in others
    ]
    if first.repeats == 1 and first.weight == 1 and (not others or (same == [True])):
        out.arguments |= {"train_data_dir": first.folder, **table}
        if others:
            out.arguments |= {"reg_data_dir": others[0].folder, "prior_loss_weight": others[0].weight}
        return
    for dataset in recipe.dataset:
        own = _table(dataset, out if dataset is first else Exported())
        own |= {"image_dir": dataset.folder, "num_repeats": dataset.repeats, "batch_size": recipe.train.batch}
        own["resolution"] = int(str(own["resolution"]).partition(",")[0])
        if own.pop("masked_loss", None):
            out.arguments["masked_loss"] = True
        if dataset.weight != 1:
            own["is_reg"] = True
            out.arguments["prior_loss_weight"] = dataset.weight
        out.datasets.append(own)
        number = PurePath(dataset.folder).name.partition("_")[0]
        if number.isdigit():
            out.problems.append(
                f"{dataset.folder}: a dataset_config does not read the {number} in its name; set num_repeats"
            )


def _plain(dataset: Dataset) -> dict[str, Any]:
    return dataset.model_dump()


def _table(dataset: Dataset, out: Exported) -> dict[str, Any]:
    side = dataset.resolution or 1024
    table: dict[str, Any] = {"resolution": f"{side},{side}", "caption_extension": dataset.extensions[0]}
    for argument, name in CAPTIONS.items():
        if getattr(dataset, name):
            table[argument] = getattr(dataset, name)
    if dataset.bucket:
        table |= {"enable_bucket": True, "bucket_reso_steps": dataset.bucket_step}
        if dataset.no_upscale:
            table["bucket_no_upscale"] = True
        else:
            table |= {
                "min_bucket_reso": dataset.bucket_min or side // 2,
                "max_bucket_reso": dataset.bucket_max or 2 * side,
            }
        if dataset.bucket_step % 32:
            out.lost("dataset.bucket_step", dataset.bucket_step, "sd-scripts wants a multiple of 32 for SDXL")
    if dataset.random_crop:
        table["random_crop"] = True
    if dataset.masks == "alpha":
        table |= {"alpha_mask": True, "masked_loss": True}
    elif dataset.masks:
        table |= {"conditioning_data_dir": dataset.masks, "masked_loss": True}
    if dataset.background != "#ffffff":
        out.lost("dataset.background", dataset.background, "sd-scripts drops the transparency, whatever lies under it")
    if len(dataset.extensions) > 1:
        out.lost("dataset.extensions", dataset.extensions, "sd-scripts reads one kind of caption file, the first")
    return table
