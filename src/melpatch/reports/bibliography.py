"""A bibliography of the papers that objectives name, by their number on arXiv, in BibTeX.

An objective names its papers in its docstring. A paper that is not listed here is cited by its
number alone.
"""

import re
import sys
from typing import NamedTuple

_NUMBER = re.compile(r"\b(\d{4}\.\d{4,5})\b")


class Paper(NamedTuple):
    """A paper on arXiv."""

    key: str
    """By what it is cited."""
    authors: str
    """As BibTeX has them."""
    title: str
    """As BibTeX has it, letters that stay capital in braces."""
    year: str
    """Year of the publication: that of the conference or journal where there is one."""


_PAPERS = {
    "2010.10915": Paper(
        "saeed2021cola",
        "Saeed, Aaqib and Grangier, David and Zeghidour, Neil",
        "Contrastive Learning of General-Purpose Audio Representations",
        "2021",
    ),
    "2103.03230": Paper(
        "zbontar2021barlowtwins",
        "Zbontar, Jure and Jing, Li and Misra, Ishan and LeCun, Yann and Deny, St{\\'e}phane",
        "Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
        "2021",
    ),
    "2103.06695": Paper(
        "niizumi2021byola",
        "Niizumi, Daisuke and Takeuchi, Daiki and Ohishi, Yasunori and Harada, Noboru and "
        "Kashino, Kunio",
        "{BYOL} for Audio: Self-Supervised Learning for General-Purpose Audio Representation",
        "2021",
    ),
    "2110.09784": Paper(
        "gong2022ssast",
        "Gong, Yuan and Lai, Cheng-I Jeff and Chung, Yu-An and Glass, James",
        "{SSAST}: Self-Supervised Audio Spectrogram Transformer",
        "2022",
    ),
    "2111.06377": Paper(
        "he2022mae",
        (
            "He, Kaiming and Chen, Xinlei and Xie, Saining and Li, Yanghao and Doll{\\'a}r, "
            "Piotr and Girshick, Ross"
        ),
        "Masked Autoencoders Are Scalable Vision Learners",
        "2022",
    ),
    "2202.03555": Paper(
        "baevski2022data2vec",
        (
            "Baevski, Alexei and Hsu, Wei-Ning and Xu, Qiantong and Babu, Arun and Gu, Jiatao "
            "and Auli, Michael"
        ),
        (
            "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and "
            "Language"
        ),
        "2022",
    ),
    "2203.16691": Paper(
        "baade2022maeast",
        "Baade, Alan and Peng, Puyuan and Harwath, David",
        "{MAE-AST}: Masked Autoencoding Audio Spectrogram Transformer",
        "2022",
    ),
    "2204.12076": Paper(
        "li2022atst",
        "Li, Xian and Li, Xiaofei",
        "{ATST}: Audio Representation Learning with Teacher-Student Transformer",
        "2022",
    ),
    "2204.12768": Paper(
        "chong2023maskspec",
        "Chong, Dading and Wang, Helin and Zhou, Peilin and Zeng, Qingcheng",
        "Masked Spectrogram Prediction for Self-Supervised Audio Pre-Training",
        "2023",
    ),
    "2207.06405": Paper(
        "huang2022audiomae",
        (
            "Huang, Po-Yao and Xu, Hu and Li, Juncheng and Baevski, Alexei and Auli, Michael "
            "and Galuba, Wojciech and Metze, Florian and Feichtenhofer, Christoph"
        ),
        "Masked Autoencoders that Listen",
        "2022",
    ),
    "2210.14648": Paper(
        "niizumi2023m2d",
        (
            "Niizumi, Daisuke and Takeuchi, Daiki and Ohishi, Yasunori and Harada, Noboru and "
            "Kashino, Kunio"
        ),
        (
            "Masked Modeling Duo: Learning Representations by Encouraging Both Networks to "
            "Model the Input"
        ),
        "2023",
    ),
    "2211.13189": Paper(
        "atito2024asit",
        (
            "Atito, Sara and Awais, Muhammad and Wang, Wenwu and Plumbley, Mark D. and Kittler, "
            "Josef"
        ),
        "{ASiT}: Audio Spectrogram {vIsion} Transformer",
        "2024",
    ),
    "2212.07525": Paper(
        "baevski2023data2vec2",
        "Baevski, Alexei and Babu, Arun and Hsu, Wei-Ning and Auli, Michael",
        (
            "Efficient Self-supervised Learning with Contextualized Target Representations for "
            "Vision, Speech and Language"
        ),
        "2023",
    ),
    "2401.03497": Paper(
        "chen2024eat",
        "Chen, Wenxi and Liang, Yuzhe and Ma, Ziyang and Zheng, Zhisheng and Chen, Xie",
        "{EAT}: Self-Supervised Pre-Training with Efficient Audio Transformer",
        "2024",
    ),
    "2404.06095": Paper(
        "niizumi2024m2d",
        (
            "Niizumi, Daisuke and Takeuchi, Daiki and Ohishi, Yasunori and Harada, Noboru and "
            "Kashino, Kunio"
        ),
        "Masked Modeling Duo: Towards a Universal Audio Pre-training Framework",
        "2024",
    ),
    "2405.08679": Paper(
        "riou2024jepa",
        'Riou, Alain and Lattner, Stefan and Hadjeres, Ga{\\"e}tan and Peeters, Geoffroy',
        (
            "Investigating Design Choices in Joint-Embedding Predictive Architectures for "
            "General Audio Representation Learning"
        ),
        "2024",
    ),
    "2502.12031": Paper(
        "quelennec2025matpac",
        "Quelennec, Aurian and Chouteau, Pierre and Peeters, Geoffroy and Essid, Slim",
        (
            "Masked Latent Prediction and Classification for Self-Supervised Audio "
            "Representation Learning"
        ),
        "2025",
    ),
    "2506.12222": Paper(
        "alex2025sslam",
        (
            "Alex, Tony and Atito, Sara and Mustafa, Armin and Awais, Muhammad and Jackson, "
            "Philip J. B."
        ),
        (
            "{SSLAM}: Enhancing Self-Supervised Models with Audio Mixtures for Polyphonic "
            "Soundscapes"
        ),
        "2025",
    ),
    "2508.12709": Paper(
        "quelennec2025matpacpp",
        "Quelennec, Aurian and Chouteau, Pierre and Peeters, Geoffroy and Essid, Slim",
        (
            "{MATPAC++}: Enhanced Masked Latent Prediction for Self-Supervised Audio "
            "Representation Learning"
        ),
        "2025",
    ),
}


def papers_of(objective: type) -> list[str]:
    """Return the numbers on arXiv of the papers that an objective is of, the method's own first.

    They are those in the docstring of its module; training with labels is of no paper.
    """
    module = sys.modules.get(objective.__module__)
    return [*dict.fromkeys(_NUMBER.findall((module and module.__doc__) or ""))]


def cite_key(number: str) -> str:
    """Return the key by which a paper is cited."""
    paper = _PAPERS.get(number)
    return f"arxiv{number}" if paper is None else paper.key


def bibtex(number: str) -> str:
    """Return the BibTeX entry of a paper; of one that is not listed, its number and address only."""
    paper = _PAPERS.get(number)
    fields = {}
    if paper is not None:
        fields = {"author": paper.authors, "title": paper.title, "year": paper.year}
    fields |= {
        "eprint": number,
        "archivePrefix": "arXiv",
        "url": f"https://arxiv.org/abs/{number}",
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@misc{{{cite_key(number)},", *lines, "}"])
