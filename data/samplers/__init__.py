"""Which images form which batch: one file per sampler, found by its name in params.json."""

from params.plugin import Table

SAMPLERS = Table("sampler", {
    "identities": "data.samplers.identities:Identities",
    "ipc": "data.samplers.ipc:ImagesPerClass",
    "pk": "data.samplers.pk:PK",
    "pk_prop": "data.samplers.pk_prop:PKProp",
    "random": "data.samplers.shuffled:Shuffled",
    "triplet_items": "data.samplers.triplet_items:TripletItems",
})
