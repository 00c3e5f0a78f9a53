"""The losses that params.json may list."""

from params.plugin import Table

LOSSES = Table("loss", {
    "am_softmax": "trainer.losses.am_softmax:AMSoftmax",
    "circle": "trainer.losses.circle:Circle",
    "focal": "trainer.losses.focal:Focal",
    "hist": "trainer.losses.hist:Hist",
    "histogram": "trainer.losses.histogram:Histogram",
    "instance": "trainer.losses.instance:Instance",
    "norm_regulariser": "trainer.losses.norm_regulariser:NormRegulariser",
    "softmax": "trainer.losses.softmax:Softmax",
    "spectral": "trainer.losses.spectral:Spectral",
    "triplet": "trainer.losses.triplet:Triplet",
    "verification": "trainer.losses.verification:Verification",
})
