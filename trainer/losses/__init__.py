"""The losses that params.json may list."""

from params.plugin import Table

LOSSES = Table("loss", {
    "am_softmax": "trainer.losses.am_softmax:AMSoftmax",
    "arcface": "trainer.losses.cosine:ArcFace",
    "arcface-pair": "trainer.losses.margin_pairs:ArcFacePair",
    "circle": "trainer.losses.circle:Circle",
    "cosface": "trainer.losses.cosine:CosFace",
    "cosface-pair": "trainer.losses.margin_pairs:CosFacePair",
    "focal": "trainer.losses.focal:Focal",
    "hist": "trainer.losses.hist:Hist",
    "histogram": "trainer.losses.histogram:Histogram",
    "instance": "trainer.losses.instance:Instance",
    "n-softmax": "trainer.losses.cosine:NSoftmax",
    "norm_regulariser": "trainer.losses.norm_regulariser:NormRegulariser",
    "proj": "trainer.losses.cosine:Proj",
    "softmax": "trainer.losses.softmax:Softmax",
    "spectral": "trainer.losses.spectral:Spectral",
    "triplet": "trainer.losses.triplet:Triplet",
    "uc-atri": "trainer.losses.norm_aware:UcAtri",
    "uc-atri-n": "trainer.losses.norm_aware:UcAtriN",
    "uc-cls": "trainer.losses.cosine:UcCls",
    "uc-pair": "trainer.losses.norm_aware:UcPair",
    "uc-pair-n": "trainer.losses.norm_aware:UcPairN",
    "uc-tri": "trainer.losses.norm_aware:UcTri",
    "uc-tri-dpn": "trainer.losses.norm_aware:UcTriDpn",
    "uc-tri-hard": "trainer.losses.norm_aware:UcTriHard",
    "uc-tri-n": "trainer.losses.norm_aware:UcTriN",
    "uc-xent": "trainer.losses.cosine:UcXent",
    "ucx-cls": "trainer.losses.cosine:UcxCls",
    "verification": "trainer.losses.verification:Verification",
})
