"""The rows of the evidence: id, source, claim, when it holds, what checking found, topics, and 1 where overruled."""

HEADINGS = {
    "Base models": "B",
    "Pictures and captions": "S",
    "Training": "T",
    "Watching, judging, cost": "W",
    "From the method, counts and trials": "MCPK",
}
SYNONYMS = {
    "learning_rate": "lr", "unet_lr": "lr", "text_encoder_lr": "text_lr", "network_dim": "rank", "dim": "rank",
    "network_alpha": "alpha", "batch_size": "batch", "train_batch_size": "batch", "optimizer_type": "optimizer",
    "optim.name": "optimizer", "name": "optimizer", "lr_scheduler": "schedule", "min_snr": "min_snr_gamma",
    "snr": "min_snr_gamma", "locon": "conv_rank", "conv_dim": "conv_rank", "bucket_reso_steps": "bucket_step",
    "buckets": "bucket_step", "price": "cost", "money": "cost", "memory": "vram", "checkpoint": "saving",
    "save_every_n_epochs": "saving", "save.epochs": "saving", "save.steps": "saving", "train.epochs": "epochs",
    "sample.negative": "negative", "tags": "captions", "tagger": "captions", "v_pred": "prediction",
    "ztsnr": "prediction", "overfitting": "overbaked", "size": "pictures", "repeats": "epochs",
}  # fmt: skip

ROWS: list[tuple] = [
    (
        "B1", "R",
        "Pony Diffusion V6 XL is the base for Pony-like LoRAs; its prompts carry quality tags such as "
        "score_9.",
        "Pony",
        "Clip skip 2 is a habit without effect: SDXL always uses the layer before the last.",
        "base pony clip_skip prompts",
    ),
    (
        "B2", "R",
        "stabilityai/stable-diffusion-xl-base-1.0 is the alternative base.",
        "SDXL base",
        "",
        "base sdxl",
    ),
    (
        "B3", "D",
        "Illustrious, NoobAI XL and Animagine XL are used as bases.",
        "anime styles",
        "NoobAI also comes as a velocity model with zero terminal SNR. Trained as epsilon it gives empty "
        "pictures and no error in other trainers; the file says which it is.",
        "base illustrious noobai animagine prediction",
    ),
    (
        "B4", "D",
        "Flux and SD 1.5 are used now and then.",
        "",
        "Kiln trains SDXL and its children.",
        "base flux sd15",
    ),
    (
        "B5", "D",
        "Try the concept on the base first: what it half knows trains more easily, and a base of the same "
        "kind of pictures matters most (gacha styles on gacha-trained bases).",
        "before training",
        "No other trainer offers such a test.",
        "base probe novelty style",
    ),
    (
        "B6", "D",
        "A base has strong defaults (asked for a superhero, SDXL draws the famous two); a negative prompt "
        "keeps them away while you judge.",
        "sample prompts",
        "",
        "base negative sample prompts",
    ),
    (
        "S1", "R",
        "20-40 pictures for a character, 50-100 for a style (rank up to 32), from one illustrator or series.",
        "",
        "",
        "pictures character style rank",
    ),
    (
        "S2", "R",
        "Pictures of at least 1024 pixels (D: above 512, ideally 1024).",
        "SDXL",
        "",
        "resolution pictures upscale",
    ),
    (
        "S3", "D",
        "Remove duplicates and near-duplicate poses; quality before quantity; generated pictures are fine.",
        "",
        "No other trainer finds near-duplicates.",
        "duplicates pictures",
    ),
    (
        "S4", "R",
        "Tag with a WD14 or MOAT v2 tagger at threshold 0.35.",
        "",
        "",
        "captions threshold",
    ),
    (
        "S5", "R",
        "Quality tags and one unusual trigger word; about half the pictures with a short sentence.",
        "",
        "",
        "captions trigger prose missing",
    ),
    (
        "S6", "R",
        "Leave out tags that should belong to the concept (all clothing but one).",
        "character",
        "",
        "captions trigger",
    ),
    (
        "S7", "D",
        "Never mix the outputs of several taggers without cleaning up; read captions by hand; check "
        "keep_tokens instead of trusting a default.",
        "",
        "",
        "captions keep_tokens mixed",
    ),
    (
        "S8", "R",
        "Buckets from 512 to 2048 in steps of 256.",
        "",
        "Steps of 256 cut 22 % off an 832x1216 picture and 27 % off 900x900 when nothing is enlarged; steps "
        "of 64 cut 0 and 0.9 %.",
        "bucket_step crop",
        1,
    ),
    (
        "T1", "R",
        "Fast preset: Prodigy at LR 1, cosine, rank 16, alpha 2, batch 3, 50 epochs, bf16, checkpointing, "
        "weight_decay 0.01, betas 0.9 and 0.99, use_bias_correction; save every 10 epochs, better every 5.",
        "20-40 pictures",
        "The preset leaves both parts' rates at 0, which trains both at 1.",
        "optimizer prodigy lr rank alpha batch epochs schedule saving character weight_decay",
    ),
    (
        "T2", "R",
        "Rank 32 with alpha 32 for larger sets or richer styles.",
        "larger sets",
        "",
        "rank alpha",
    ),
    (
        "T3", "R",
        "Adafactor at 5e-4.",
        "",
        "Elsewhere Adafactor throws this rate away unless relative_step, scale_parameter and warmup_init are "
        "off; Kiln's defaults have them off.",
        "optimizer adafactor lr",
    ),
    (
        "T4", "R",
        "2,560 to 8,160 steps in all; 6-12 epochs for larger sets.",
        "",
        "",
        "steps epochs",
    ),
    (
        "T5", "D",
        "Baseline: LR 5e-4, text encoder 1e-4, rank 32, alpha 16-32, Adafactor or AdamW8bit, batch 2-4, above"
        " 3,600 steps for a consistent style.",
        "",
        "'5e4' in the text means 5e-4.",
        "optimizer lr text_lr rank alpha batch steps adamw8bit style",
    ),
    (
        "T6", "D",
        "CAME with DoRA for a style: rank 16, alpha 8, conv 16/8, LR 1e-4, text encoder off, weight decay "
        "0.1, cosine, batch 4, 10 epochs, min-SNR 8, keep_tokens 1.",
        "style",
        "The guide's use_dora=True is never read by LyCORIS: 0 of 788 modules were decomposed. Its results "
        "are those of LoCon (LoRA with convolutions), which is what Kiln advises; DoRA is worth comparing.",
        "optimizer came lr rank alpha conv_rank dora text_lr batch epochs schedule min_snr_gamma keep_tokens "
        "style weight_decay",
        1,
    ),
    (
        "T7", "D",
        "CAME below 50 pictures, a character: 6e-5, rank 8, alpha 4 is ideal (14 pictures, 336 steps).",
        "character, below 50 pictures",
        "",
        "optimizer came lr rank alpha steps character pictures",
    ),
    (
        "T8", "D",
        "CAME with 50-100 pictures of a style is weak: 1e-4 or more, helped by what the base knows (73 "
        "pictures, 730 steps at 6e-5: weak).",
        "style, 50-100 pictures",
        "",
        "optimizer came lr style novelty pictures steps",
    ),
    (
        "T9", "D",
        "CAME with 100-150 pictures of a style works with DoRA at 1e-4 (125 pictures, 630 steps).",
        "style, 100-150 pictures",
        "That DoRA was LoCon; see T6.",
        "optimizer came lr style dora pictures steps",
        1,
    ),
    (
        "T10", "D",
        "CAME above 200 pictures is too cautious (282 pictures, 1,410 steps at 1e-4 failed); AdamW at 5e-4 or"
        " more on the same set: B+, still improving.",
        "style, above 200 pictures",
        "Not seen on the starter, which is not SDXL: with 200 pictures CAME at 2e-4 gains as much as AdamW8bit at "
        "2e-3, and far more than AdamW8bit at 2e-4 (docs/experiments/optimizer.md).",
        "optimizer came adamw lr style pictures epochs",
    ),
    (
        "T11", "D",
        "Never 5e-4 with CAME: abstract void.",
        "CAME",
        "So it is on the starter: at 6e-4 CAME gains next to nothing where AdamW8bit learns, and at 2e-3 every loss "
        "ends as no number (docs/experiments/optimizer.md).",
        "optimizer came lr",
    ),
    (
        "T12", "D",
        "A style needs a higher rate than a character; styles new to the base are harder than familiar ones.",
        "",
        "",
        "lr style character novelty",
    ),
    (
        "T13", "R",
        "12 GB of VRAM recommended, 10 GB with FP8, 24 GB for batch 2.",
        "SDXL",
        "Counted: bf16 with checkpointing takes 7.4 GiB at batch 1, without it 12.4; see C1.",
        "vram batch",
    ),
    (
        "T14", "R",
        "A character wants one pose, angle and light kept alike; a style wants breadth.",
        "",
        "",
        "pictures character style",
    ),
    (
        "W1", "R",
        "Overtrained: it repeats training pictures; undertrained: a poor likeness. Save every 5-10 epochs and"
        " compare.",
        "",
        "",
        "saving overbaked epochs heldout",
    ),
    (
        "W2", "D",
        "Watch the loss, draw samples while it trains, and judge afterwards.",
        "",
        "",
        "sample loss",
    ),
    (
        "W3", "D",
        "Slightly overbaked beats underbaked: strength can be turned down to 0.5-0.7.",
        "",
        "",
        "strength overbaked",
    ),
    (
        "W4", "D",
        "Judge with a proper pipeline (hires fix, face detail, negative prompts, several bases) and report "
        "limits honestly.",
        "",
        "",
        "sample negative",
    ),
    (
        "W5", "D",
        "Write every experiment down: what works for which set.",
        "",
        "",
        "experiments",
    ),
    (
        "W6", "D",
        "An RTX 5090 at about $0.50 an hour, batch 4: 20-30 minutes for a style.",
        "2025 prices",
        "",
        "cost time gpu",
    ),
    (
        "W7", "D",
        "Open: DoRA against LoHa and LoCon; CAME against AdamW8bit above 500 pictures; repeats by set size; "
        "time against quality.",
        "",
        "Tried on the starter, which is not SDXL (docs/experiments): LoCon gains 0.014 more than LoRA, DoRA 0.002, "
        "LoHa nothing; CAME equals AdamW8bit at a tenth of its rate; at equal steps repeats do not replace pictures.",
        "dora experiments epochs",
    ),
    (
        "W8", "D",
        "A missing onnx or xformers kills training: check before the clock runs.",
        "rented machines",
        "",
        "dependencies precision gpu",
    ),
    (
        "W9", "D",
        "A notebook with widgets for dataset, tagging, training and watching.",
        "",
        "",
        "notebook",
    ),
    (
        "W10", "R",
        "kohya_ss presets, Stability Matrix, RunPod.",
        "",
        "Kiln imports those presets.",
        "import",
    ),
    (
        "M1", "M",
        "A LoRA's change is scaled by alpha / rank (alpha / sqrt(rank) where rank-stabilised): halving alpha "
        "acts much like halving the rate.",
        "Hu et al. 2021; Kalajdzievski 2023",
        "",
        "alpha rank lr",
    ),
    (
        "M2", "M",
        "Min-SNR weighs a velocity model's step by min(SNR, gamma) / (SNR + 1); at zero terminal SNR the last"
        " step weighs nothing, so pure noise is never learned.",
        "Hang et al. 2023",
        "",
        "min_snr_gamma prediction",
    ),
    (
        "M3", "M",
        "CLIP reads 75 tokens at a time; what follows goes into a further chunk that weighs less in the "
        "pooled vector.",
        "SDXL",
        "Other trainers cut captions off there unless told otherwise.",
        "captions tokens",
    ),
    (
        "M4", "M",
        "A batch holds pictures of one bucket: where a bucket has fewer visits than the batch, its steps are "
        "smaller and noisier than the rate was chosen for.",
        "",
        "",
        "batch bucket_step",
    ),
    (
        "M5", "M",
        "Prodigy finds its own step size; its rate is a factor on that and belongs at 1.",
        "Mishchenko & Defazio 2024",
        "",
        "optimizer prodigy lr",
    ),
    (
        "C1", "C",
        "SDXL's UNet takes 4.78 GiB in bf16; activations of a 1024-pixel picture 6.3 GiB, with checkpointing "
        "1.4; AdamW on rank 16 adds 0.63 GiB.",
        "batch 1",
        "",
        "vram batch precision",
    ),
    (
        "C2", "C",
        "A picture costs 14.7 TFLOP forward and backward with LoRA at 1024 pixels, 20.9 with checkpointing.",
        "SDXL",
        "",
        "time cost gpu",
    ),
    (
        "P1", "P",
        "No state, no choice: a run that saves rarely and is stopped loses all since the last save.",
        "rented machines",
        "",
        "saving time",
    ),
    (
        "P2", "P",
        "bf16 needs an Ampere card (compute capability 8.0) or newer; 8-bit AdamW needs bitsandbytes.",
        "",
        "",
        "precision dependencies optimizer",
    ),
    (
        "K1", "K",
        "The starter base is tiny: it learns a style from 40 pictures in 400 steps at 2e-3, a rate at which "
        "SDXL would break.",
        "starter",
        "",
        "lr starter base",
    ),
]  # fmt: skip
