"""Which images form which batch: one file per sampler, found by its name in params.json."""

from params.plugin import Table

SAMPLERS = Table("sampler", {
    "pk": "data.samplers.pk:PK",
    "random": "data.samplers.shuffled:Shuffled",
})
