"""Everything that params.json may say, apart from the keys of plug-ins, which their constructors declare."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from params.errors import Path
from params.plugin import Choice
from params.sugar import whole_batch

Count = Annotated[int, Field(ge=1, le=10**9)]
Text = Annotated[str, Field(min_length=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """One object of params.json: exact types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class Plugin(Section):
    """A section that names a plug-in under `selector` and holds the plug-in's own keys beside ours."""

    model_config = ConfigDict(extra="allow")
    table: ClassVar[str]
    selector: ClassVar[str] = "type"

    @property
    def choice(self) -> Choice:
        """The plug-in's name and the keys given to it."""
        return Choice(getattr(self, self.selector), dict(self.model_extra or {}))


class Optimizer(Plugin):
    """How gradients become steps."""

    table = "optimizer"
    type: Annotated[str, Field(description="name of the optimiser")] = "sgd"


class Lr(Plugin):
    """Learning rates and their course; units count from the beginning of the stage."""

    table = "schedule"
    selector = "schedule"
    schedule: Annotated[str, Field(
        description="course of the learning rate; decay_step alone asks for step")] = "constant"
    base_lr: Annotated[Rate, Field(description="learning rate of the backbone")] = 0.01
    fc_lr: Annotated[Rate | None, Field(
        description="learning rate of neck, classifier and losses; null = base_lr")] = None
    unit: Annotated[Literal["epoch", "step"] | None, Field(
        description="what warmup and decay_step count; null = step with the sampler pk, else epoch",
    )] = None
    warmup: Annotated[int, Field(ge=0, le=10**9, description="length of the linear warm-up, in units; 0 = none")] = 0
    warmup_factor: Annotated[Share | None, Field(
        description="factor at the start of the warm-up; null = 1 / warmup, reaching 1 with its last unit")] = None
    decay_after_warmup: Annotated[bool, Field(
        description="count decay_step from the end of the warm-up, not from the start")] = True


class Pooling(Plugin):
    """From the feature map to one vector."""

    table = "pooling"
    type: Annotated[str, Field(description="name of the pooling")] = "avg"


class Neck(Plugin):
    """From the pooled vector to the embedding."""

    table = "neck"
    type: Annotated[str, Field(description="name of the neck")] = "bnneck"


class Margin(Plugin):
    """A margin for every image from the length of its vector."""

    table = "margin"
    type: Annotated[str, Field(description="how length becomes margin")]
    on: Annotated[Literal["features", "embedding"], Field(
        description="before or after the neck's batch norm; embedding suits losses that read cosines")] = "features"


class ModelParams(Plugin):
    """The network."""

    table = "backbone"
    selector = "backbone"
    backbone: Annotated[str, Field(description="name of the backbone, or timm/<name>")] = "resnet50"
    feature_dim: Annotated[Annotated[int, Field(ge=1, le=1 << 16)] | None, Field(
        description="length of the embedding, over all PCB parts; null = the backbone's own width")] = None
    neck: Neck = Neck()
    pooling: Pooling = Pooling()
    classifier_bias: Annotated[bool | None, Field(
        description="whether a linear classifier has one; null = not after a batch norm without shift")] = None
    feature_bn: Annotated[bool, Field(description="batch norm without shift between pooling and neck")] = False
    margin: Annotated[Margin | None, Field(description="norm-aware margins; null = none")] = None
    pcb_n_parts: Annotated[int, Field(
        ge=0, le=64, description="horizontal stripes, each with its own head; 0 = off")] = 0
    pcb_global_dim: Annotated[int, Field(
        ge=0, le=1 << 16, description="length of a further branch over the whole map, max pooled; 0 = off")] = 0
    random_drop_branches: Annotated[int, Field(
        ge=0, le=64, description="draws per step of branches whose logits no loss sees; one always stays")] = 0
    bn_freeze: Annotated[Literal["stats", "all"] | None, Field(
        description="the backbone's batch norms keep their statistics, or their weights too")] = None
    neck_feature: Annotated[Literal["before", "after"], Field(
        description="what is evaluated and exported: the vector before or after the neck's batch norm")] = "after"
    flip: Annotated[bool, Field(
        description="evaluate and export the mean of an image's embedding and its mirror image's")] = False
    part_norm: Annotated[bool, Field(
        description="evaluate and export the embedding with each branch's part at the same length")] = False


class Sampling(Plugin):
    """Which images form a batch."""

    table = "sampler"
    type: Annotated[str, Field(description="name of the batch sampler")] = "random"


class LossSection(Plugin):
    """One term of the loss."""

    table = "loss"
    type: Annotated[str, Field(description="name of the loss")]
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False, description="factor of this term")] = 1.0
    of: Annotated[Literal["batch", "anchors"], Field(
        description="the images it sees: all, or the anchors of batches of triplets")] = "batch"


class ParameterRule(Section):
    """Another rate or decay for the weights whose name a pattern finds; of what several give, the last counts."""

    match: Annotated[str, Field(
        min_length=1, description="regular expression searched in the names of weights, e.g. bias$ or ^losses")]
    lr: Annotated[Rate | None, Field(description="their own base learning rate")] = None
    lr_factor: Annotated[Rate | None, Field(description="factor on the rate they would have; without lr")] = None
    weight_decay: Annotated[float | None, Field(ge=0, allow_inf_nan=False, description="their own decay")] = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.lr is None and self.lr_factor is None and self.weight_decay is None:
            raise ValueError("expected lr, lr_factor or weight_decay beside match")
        if self.lr is not None and self.lr_factor is not None:
            raise ValueError("expected one of lr and lr_factor, which both say the rate")
        return self


class Stage(Section):
    """A part of the run in which some weights rest."""

    epochs: Annotated[Count | None, Field(description="its length; null = to the end of the run")] = None
    freeze: Annotated[list[Annotated[str, Field(min_length=1)]], Field(
        min_length=1, description="regular expressions searched in the names of weights, e.g. backbone")]
    lr: Annotated[Lr | None, Field(description="its own learning rates and course; null = those of the run")] = None
    best: Annotated[bool, Field(description="whether one of its epochs may be the best snapshot")] = True


class Evaluation(Plugin):
    """What is measured while training, and which snapshot is the best."""

    table = "evaluator"
    type: Annotated[str, Field(description="module in evaluate/, or a dotted path to your own")]
    every: Annotated[Count, Field(description="epochs between evaluations; the last epoch is always evaluated")] = 1
    monitor: Annotated[str | None, Field(
        description="metric that chooses the best snapshot; null = the evaluator's first")] = None
    mode: Annotated[Literal["max", "min"], Field(description="whether a higher or a lower value is better")] = "max"
    initial: Annotated[bool, Field(description="also evaluate the network before its first step")] = False


class Augmentation(Plugin):
    """What is done to training images, besides preprocessing."""

    table = "augmentation"
    selector = "kind"
    kind: ClassVar[str] = "images"


class Preprocess(Plugin):
    """From an encoded image to the network's pixels, the same in training and deployment."""

    table = "preprocessing"
    selector = "kind"
    kind: ClassVar[str] = "images"


class PretrainSnapshot(Section):
    """Weights to start from."""

    path: Annotated[str, Field(min_length=1, description="a snapshot of Kiln, or a state dict")]
    strict: Annotated[bool, Field(description="every tensor must fit; false loads what fits and lists the rest")] = True
    min_coverage: Annotated[Share, Field(
        description="with strict false: share of the weights, classifiers aside, that must have been loaded")] = 0.9


class Params(Section):
    """One training run."""

    model_config = ConfigDict(populate_by_name=True)

    editor_schema: Annotated[str | None, Field(alias="$schema", description="for editors; no effect")] = None
    about: Annotated[Any, Field(description="notes of yours; no effect")] = None
    batches_dir: Annotated[Text | Annotated[list[Text], Field(min_length=1)], Field(
        description="folder of archives written by data.pack, or several to train on together")]
    working_dir: Annotated[str, Field(min_length=1, description="folder in which runs are made")] = "runs"
    seed: Annotated[int, Field(ge=0, lt=2**32, description="every random draw comes from it")] = 0
    epoch: Annotated[Count, Field(description="passes over the training images")] = 30
    batch_size: Annotated[Count, Field(
        description="images per step and process; P x K, of all processes together, when class-balanced")] = 64
    img_h: Annotated[int, Field(ge=8, le=4096, description="height of the network's input, pixels")] = 256
    img_w: Annotated[int, Field(ge=8, le=4096, description="width of the network's input, pixels")] = 128
    model_params: ModelParams = ModelParams()
    imagenet_pretrain: Annotated[bool | str, Field(
        description="true = torchvision's ImageNet weights; a string = a file with them; false = random")] = False
    pretrain_snapshot: Annotated[PretrainSnapshot | None, Field(
        description="weights to start from: a path, or {path, strict, min_coverage}; null or \"\" = none")] = None
    losses: Annotated[list[LossSection], Field(min_length=1)] = [LossSection(type="softmax")]
    batch_sampling_params: Sampling = Sampling()
    preprocess: Preprocess = Preprocess()
    data_augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    lr: Lr = Lr()
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False, description="L2 factor")] = 5e-4
    parameter_rules: Annotated[list[ParameterRule], Field(
        description="rates and decays by the names of weights")] = []
    stages: Annotated[list[Stage], Field(
        description="what rests during the first epochs; all of it trains in those that follow")] = []
    gradient_clip: Annotated[float, Field(
        ge=0, allow_inf_nan=False, description="largest gradient norm; 0 = off")] = 0.0
    gradient_accumulation: Annotated[Count, Field(description="batches per optimiser step")] = 1
    batch_norm_parts: Annotated[Count, Field(
        description="forward passes that a training batch is cut into, each with batch norm statistics of its own",
    )] = 1
    ema_decay: Annotated[float, Field(
        ge=0, lt=1, description="decay of averaged weights, which are then evaluated and exported; 0 = off")] = 0.0
    precision: Annotated[Literal["fp32", "bf16", "fp16"], Field(description="arithmetic of the network")] = "fp32"
    channels_last: Annotated[bool, Field(description="memory layout; faster convolutions on some devices")] = False
    compile: Annotated[bool, Field(description="run the network through torch.compile")] = False
    parallels: Annotated[list[Annotated[int, Field(ge=0)]], Field(
        description="GPU ids, each with a process of its own; [] = CPU; with device cpu, as many processes there")] = []
    device: Annotated[Literal["cpu", "cuda"] | None, Field(
        description="null = cuda when parallels names GPUs, else cpu")] = None
    sync_batch_norm: Annotated[bool, Field(
        description="several processes' batch norms compare the images of all, not each its own")] = True
    num_preprocess_workers: Annotated[int, Field(
        ge=0, le=256, description="processes that prepare batches, for each one that trains")] = 2
    worker_start: Annotated[Literal["fork", "spawn", "forkserver"] | None, Field(
        description="how those processes are started; null = the platform's default")] = None
    evaluation_params: Evaluation | None = None
    log_every: Annotated[Count, Field(description="steps between logged steps")] = 10
    snapshot_every: Annotated[int, Field(
        ge=0, le=10**9, description="steps between snapshots within an epoch; 0 = only at its end")] = 0

    @property
    def processes(self) -> int:
        """How many train."""
        return max(len(self.parallels), 1)

    @property
    def whole_batch(self) -> int:
        """Images of a step over all processes."""
        return whole_batch(self.model_dump(include={"batch_size", "batch_sampling_params", "parallels"}))

    def plugins(self) -> Iterator[tuple[Path, Plugin]]:
        """Every section that names a plug-in, with its path."""
        return _plugins((), self)


def _plugins(path: Path, value: Any) -> Iterator[tuple[Path, Plugin]]:
    if isinstance(value, Plugin):
        yield path, value
    parts = value if isinstance(value, Section) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _plugins((*path, key), part)
