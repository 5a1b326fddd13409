"""How long, how precisely and on what loss: the recipe's [train], [loss], [save], [sample] and its top level."""

from typing import Any

from lorakiln.exchange.report import Sheet

PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}
SAVED = {"float": "fp32", "fp16": "fp16", "bf16": "bf16"}
SAMPLERS = {
    "euler": "euler", "k_euler": "euler", "euler_a": "euler_a", "k_euler_a": "euler_a", "dpmsolver++": "dpmpp_2m",
}  # fmt: skip
PROMPT_FLAGS = ("--w", "--h", "--d", "--s", "--l", "--n")


def length(sheet: Sheet) -> None:
    """Epochs, or steps where the source counts those; batch and accumulation."""
    epochs, steps = sheet.value("max_train_epochs"), sheet.value("max_train_steps")
    if epochs is not None:
        sheet.mapped("max_train_epochs", "train.epochs", epochs)
        sheet.set("train.steps", 0)
        sheet.set("train.epochs", epochs)
        sheet.no_effect("max_train_steps", f"max_train_epochs = {epochs} decides")
    else:
        # an epoch has at least one step, so that many epochs never end the run before its steps
        sheet.set("train.epochs", steps)
        sheet.set("train.steps", steps)
        sheet.mapped("max_train_steps", "train.steps, train.epochs", steps)
        sheet.no_effect("max_train_epochs", "0 is off")
    for name, to in (("train_batch_size", "train.batch"), ("gradient_accumulation_steps", "train.accumulate")):
        value = sheet.value(name)
        value = 1 if value is None else value
        sheet.set(to, value)
        sheet.mapped(name, to, value)


def arithmetic(sheet: Sheet) -> None:
    """Number formats, checkpointing, seed, the base and where things go."""
    word = str(sheet.value("mixed_precision") or "no")
    if word in PRECISIONS:
        sheet.set("train.precision", PRECISIONS[word])
        sheet.mapped("mixed_precision", "train.precision", PRECISIONS[word])
    else:
        sheet.invalid("mixed_precision", "must be no, fp16 or bf16")
    checkpointing = bool(sheet.value("gradient_checkpointing"))
    sheet.set("train.checkpointing", checkpointing)
    sheet.mapped("gradient_checkpointing", "train.checkpointing", checkpointing)
    for name in ("full_bf16", "full_fp16"):
        if sheet.has(name):
            sheet.unsupported(name, "Kiln keeps the adapter in fp32, which loses no small update; nearest is "
                                    "train.adapter_precision")  # fmt: skip
    seed = sheet.value("seed")
    if seed is None:
        sheet.no_effect("seed", "no seed: a new one is drawn at every start; the recipe keeps Kiln's own")
    elif seed < 0:
        sheet.unsupported("seed", "Kiln's seeds start at 0")
    else:
        sheet.mapped("seed", "seed", seed)
    for name, to in (("pretrained_model_name_or_path", "base"), ("vae", "vae"), ("network_weights", "init"),
                     ("output_dir", "runs"), ("output_name", "name")):  # fmt: skip
        if sheet.has(name):
            sheet.mapped(name, to, str(sheet.value(name)))
    if sheet.has("no_half_vae"):
        sheet.always("no_half_vae", "vae", "Kiln's VAE always works in fp32")
    elif not sheet.told("no_half_vae"):
        sheet.unsupported("no_half_vae", "Kiln's VAE always works in fp32, which is never worse")
    if sheet.has("dim_from_weights") and sheet.has("network_weights"):
        sheet.unsupported("dim_from_weights", "give adapter.rank and alpha as they are in the file")
    else:
        sheet.no_effect("dim_from_weights", "has no effect without network_weights")


def prediction(sheet: Sheet) -> None:
    """What the base is taken to predict; sd-scripts goes by its switches alone, whatever the file says."""
    v = bool(sheet.value("v_parameterization"))
    if v or "v_parameterization" in sheet.given:
        sheet.mapped("v_parameterization", "prediction", "v" if v else "epsilon")
    if sheet.has("zero_terminal_snr"):
        if v:
            sheet.mapped("zero_terminal_snr", "ztsnr", "on")
        else:
            sheet.unsupported(
                "zero_terminal_snr", "an epsilon model cannot learn from pure noise; needs v_parameterization"
            )
    else:
        sheet.no_effect("zero_terminal_snr", "off")
    if sheet.has("scale_v_pred_loss_like_noise_pred"):
        if v:
            sheet.unsupported("scale_v_pred_loss_like_noise_pred", "loss.min_snr_gamma weighs v losses in Kiln")
        else:
            sheet.invalid("scale_v_pred_loss_like_noise_pred", "stops without v_parameterization")


def loss(sheet: Sheet) -> None:
    """[loss]: error, weights and noise."""
    kind = str(sheet.value("loss_type") or "l2")
    sheet.mapped("loss_type", "loss.kind", kind)
    for name in ("huber_schedule", "huber_c", "huber_scale"):
        if kind not in ("huber", "smooth_l1"):
            sheet.no_effect(name, f"loss_type {kind} does not read it")
        elif name == "huber_scale":
            one = sheet.value(name) in (None, 1, 1.0)
            if one:
                sheet.always(name, "loss.huber_c", "1 is Kiln's")
            else:
                sheet.unsupported(name, "multiply loss.huber_c by it")
        elif sheet.value(name) is not None:
            value = sheet.value(name)
            sheet.mapped(name, f"loss.{name}", value if name == "huber_schedule" else float(value))
    gamma = sheet.value("min_snr_gamma") or 0.0
    _number(sheet, "min_snr_gamma", "loss.min_snr_gamma", gamma, 100.0)
    if sheet.has("debiased_estimation_loss") and gamma:
        sheet.unsupported("debiased_estimation_loss", "Kiln weighs the loss one way: min_snr_gamma is kept")
    else:
        sheet.mapped("debiased_estimation_loss", "loss.debiased", bool(sheet.value("debiased_estimation_loss")))
    _noise(sheet)
    _timesteps(sheet)


def _timesteps(sheet: Sheet) -> None:
    low, high = sheet.value("min_timestep") or 0, sheet.value("max_timestep")
    high = 1000 if high is None else high
    if low >= high:
        for name in ("min_timestep", "max_timestep"):
            sheet.invalid(name, f"there is no timestep from {low} to below {high}")
        return
    sheet.mapped("min_timestep", "loss.min_timestep", low)
    if high > 1000:
        sheet.invalid("max_timestep", "must be at most 1000; there are no more timesteps")
    else:
        sheet.mapped("max_timestep", "loss.max_timestep", high)


def _noise(sheet: Sheet) -> None:
    offset, scale = sheet.value("noise_offset") or 0.0, sheet.value("adaptive_noise_scale")
    if not sheet.told("noise_offset"):
        _number(sheet, "noise_offset", "loss.noise_offset", offset, 0.2)
    if not sheet.told("adaptive_noise_scale"):
        if scale and not offset:
            sheet.invalid("adaptive_noise_scale", "stops without noise_offset")
        elif scale:
            sheet.unsupported("adaptive_noise_scale", "Kiln's noise offset is the same for every picture")
        else:
            sheet.no_effect("adaptive_noise_scale", "0 is off")
    levels, discount = sheet.value("multires_noise_iterations") or 0, sheet.value("multires_noise_discount")
    if not sheet.told("multires_noise_iterations"):
        _number(sheet, "multires_noise_iterations", "loss.multires_levels", levels, 16)
    if levels:
        sheet.set("loss.multires_discount", float(discount))
        sheet.mapped("multires_noise_discount", "loss.multires_discount", float(discount))
    elif not sheet.told("multires_noise_discount"):
        sheet.no_effect("multires_noise_discount", "has no effect without multires_noise_iterations")
    _number(sheet, "ip_noise_gamma", "loss.input_perturbation", sheet.value("ip_noise_gamma") or 0.0, 1.0)


def _number(sheet: Sheet, name: str, to: str, value: Any, high: float) -> None:
    if value > high:
        sheet.unsupported(name, f"{to} ends at {high:g}")
    else:
        sheet.mapped(name, to, value if to.endswith("levels") else float(value))


def saving(sheet: Sheet) -> None:
    """[save]: checkpoints, their number and format."""
    every_epochs, every_steps = sheet.value("save_every_n_epochs") or 0, sheet.value("save_every_n_steps") or 0
    sheet.mapped("save_every_n_epochs", "save.epochs", every_epochs)
    sheet.mapped("save_every_n_steps", "save.steps", every_steps)
    last_epochs, last_steps = sheet.value("save_last_n_epochs") or 0, sheet.value("save_last_n_steps") or 0
    if last_epochs and every_epochs:
        sheet.mapped("save_last_n_epochs", "save.keep", last_epochs)
    else:
        sheet.no_effect(
            "save_last_n_epochs", "0 is off" if not last_epochs else "has no effect without save_every_n_epochs"
        )
    if last_steps and every_steps and not last_epochs:
        sheet.mapped("save_last_n_steps", "save.keep", last_steps // every_steps + 1, "as checkpoints, not steps")
    else:
        sheet.no_effect(
            "save_last_n_steps", "0 is off" if not last_steps else "has no effect without save_every_n_steps"
        )
    word = sheet.value("save_precision")
    if word is None or word in SAVED:
        sheet.set("save.dtype", SAVED.get(str(word), "fp32"))
        sheet.mapped("save_precision", "save.dtype", SAVED.get(str(word), "fp32"))
    else:
        sheet.invalid("save_precision", "must be float, fp16 or bf16")
    form = sheet.value("save_model_as")
    if form in (None, "safetensors"):
        sheet.always("save_model_as", "save.dtype", "Kiln writes .safetensors only")
    else:
        sheet.unsupported("save_model_as", "Kiln writes .safetensors only: a .ckpt can run code when it is read")
    for name in ("save_state", "save_state_on_train_end"):
        if sheet.has(name):
            sheet.always(name, "save.state_minutes", "Kiln always saves what --resume needs, the last state only")


def sampling(sheet: Sheet) -> None:
    """[sample]: prompts and how often they are drawn; without prompts nothing is drawn there either."""
    prompts, names = sheet.value("sample_prompts"), ("sample_every_n_epochs", "sample_every_n_steps", "sample_sampler")
    if not prompts:
        for name in ("sample_prompts", *names, "sample_at_first"):
            if not sheet.told(name):
                sheet.no_effect(name, "empty" if name == "sample_prompts" else "there are no prompts to draw")
        return
    _prompts(sheet, str(prompts))
    epochs = sheet.value("sample_every_n_epochs") or 0
    sheet.mapped("sample_every_n_epochs", "sample.epochs", epochs)
    if epochs:
        sheet.no_effect("sample_every_n_steps", f"sample_every_n_epochs = {epochs} decides")
    else:
        sheet.mapped("sample_every_n_steps", "sample.steps", sheet.value("sample_every_n_steps") or 0)
    sampler = str(sheet.value("sample_sampler") or "ddim")
    if sampler in SAMPLERS:
        sheet.mapped("sample_sampler", "sample.sampler", SAMPLERS[sampler])
    else:
        sheet.unsupported("sample_sampler", f"Kiln has no {sampler}; samples are drawn with euler")
    if not sheet.told("sample_at_first"):
        why = "Kiln always draws before the first step"
        if sheet.has("sample_at_first"):
            sheet.always("sample_at_first", "sample.prompts", why)
        else:
            sheet.unsupported("sample_at_first", why)


def _prompts(sheet: Sheet, text: str) -> None:
    """A file's name, or the prompts themselves, one a line."""
    if "\n" not in text and text.lower().endswith((".txt", ".json", ".toml")):
        if text.lower().endswith(".txt"):
            sheet.mapped("sample_prompts", "sample.file", text)
        else:
            sheet.unsupported("sample_prompts", "Kiln reads prompts from a .txt file, one a line")
        return
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    odd = [line for line in lines if any(word.startswith("--") and word not in PROMPT_FLAGS for word in line.split())]
    kept = [line for line in lines if line not in odd]
    why = f"{len(odd)} with flags that Kiln does not have are left out" if odd else ""
    if kept:
        sheet.mapped("sample_prompts", "sample.prompts", kept, why)
    else:
        sheet.unsupported("sample_prompts", "their flags are not Kiln's (--w --h --d --s --l --n)")
