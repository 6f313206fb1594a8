r"""Whom a scan shows: one rule, so that nobody is on both sides of a split.

1. `--person REGEX`, if it is given: what it matches in the path (its first group, if it has one).
2. DICOM: the PatientID. If it is missing or anonymous, the name with the birth date. If every
   series has the same, these tell nothing, and the folders decide, unless name and birth date
   show that it really is one person.
3. Else the path below the source, without endings of a type (`.nii.gz`):

   * a part that names a person in a known way wins: `sub-01`, `IXI002`, `OAS1_0001`,
     `002_S_0413`, `TCGA-02-0001`, `BraTS-GLI-00005`, then `patient7`, `case_12` and the like;
   * else the first part that says anything. Folders such as `Task1`, `brain`, `train`, `images`
     say nothing; a site (`siteA`, `center2`, `hospital_x`) is kept beside the person.

   From each part go modality, contrast, session, date, echo and channel (`_CT`, `_T1w`, `_scan2`,
   `pre`, `2020-01-31`, and `_0000` behind a number) with what follows them behind a number;
   capitals, leading zeros and the kind of separator do not count.

What is the same person by one of these, or by the StudyInstanceUID, is one person: too few people
are a nuisance, one too many spoils every score. Scans of which nothing is known are one person.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from scipy.cluster.hierarchy import DisjointSet

from .discovery import stem, words_of

# Ways in which data sets name a person, wherever in a path.
KNOWN_NAMES = re.compile(
    r"(?i)(?<![a-z0-9])("
    r"sub-[a-z0-9]+|IXI\d+|OAS\d_\d{4}|OAS\d{5}|\d{3}_S_\d{4}|TCGA-\w{2}-\w{4}|"
    r"BraTS-[a-z]+-\d{5})(?![a-z0-9])"
)
PERSON_LIKE = re.compile(
    r"(?i)^(sub|subj|subject|pat|patient|pid|person|participant|proband|volunteer|case)"
    r"[-_ ]?[a-z]{0,3}\d"
)
SITE = re.compile(r"(?i)^(site|cent(er|re)|hospital|clinic|institut(e|ion)?|scanner|vendor)[-_ ]?")
GROUP = re.compile(
    r"(?i)^("
    r"train(ing)?|val|valid(ation)?|test(ing)?|images?(tr|ts|val)?|task[-_ ]?\d*\w?|"
    r"brain|head|neck|pelvis|thorax|abdomen|hn|hnc|ab|th|data|dataset\w*|raw(data)?|source(data)?|"
    r"derivatives|nifti|nii|dicom|dcm|scans?|volumes?|patients|subjects|people|cases|controls|"
    r"healthy|fold[-_ ]?\d+|group[-_ ]?\w+|batch[-_ ]?\w+|cohort[-_ ]?\w+|part[-_ ]?\d+|"
    r"original|processed|preprocessed|resampled|registered|defaced)$"
)

DATE = re.compile(
    r"(?<!\d)((19|20)\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?([0-2]\d|3[01])|"
    r"([0-2]?\d|3[01])[-_.](0?[1-9]|1[0-2])[-_.](19|20)\d\d)(?!\d)"
)
YEAR = re.compile(r"(19|20)\d\d")
UID = re.compile(r"^\d+(\.\d+){4,}$")
COPY = re.compile(r"(?i)(\s*\(\d+\)|[-_ ]copy\d*)+$")

# Words on a scan, not on a person.
SCAN_WORD = re.compile(
    r"(n|ce)?ct[ap]?|mr[ia]?|cbct|pet|suv|t1(w|c|ce|gd|n|km)?|t2(w|f|s)?|flair|pdw?|dwi|adc|swi|"
    r"tof|"
    r"m?p2?rage|f?spgr|bravo|vibe|space|tse|stir|dti|bold|func|anat|perf|"
    r"ses(sion)?\d*|scan\d*|visit\d*|tp\d+|timepoint\d*|time\d+|day\d+|week\d+|month\d+|"
    r"baseline|bl|follow|followup\d*|fu\d*|pre|post|preop|postop|before|after|run\d*|rep\d*|"
    r"repeat\d*|retest|acq\d*|rec\d*|echo\d*|te\d+|"
    r"ax|axi|axial|tra|transversal|sag|sagittal|cor|coronal|bone|soft|kernel|thin|thick|native|"
    r"contrast|ce|gd|km|reg|registered|coreg|resampled|resliced|mni|n4|norm|normali[sz]ed|bias|"
    r"corr|corrected|stripped|bet|masked|defaced|iso|crop|cropped|final|copy|orig|original|raw|"
    r"denoised|image|img|volume|brain|head|skull|space|rigid|affine|warped|sct|synthetic"
)
# Words on a scan only behind a name with a number, such as `p1_e2`.
SCAN_WORD_BEHIND = re.compile(r"[evsm]\d+|im\d+|study\d*|exam\d*|series\d*|vol\d*|test|[abc]|up")
# What a number behind it counts, as in `ses-2`.
COUNTED_WORD = re.compile(
    r"ses|session|scan|visit|tp|timepoint|time|day|week|month|run|rep|repeat|"
    r"acq|rec|echo|te|followup|fu"
)
NUMBERED_MODALITY = re.compile(r"(?:ct|mri?)(\d+)")
CHANNEL = re.compile(r"000\d")

# Marks a key that links scans without naming anybody.
LINK = "link"

ANONYMOUS = re.compile(
    r"(?i)(anon[a-z]*|de[-_ ]?id[a-z]*|unknown|none|null|removed|hidden|patient|subject|person|"
    r"name|test|no[-_ ]?(id|name)|n/?a|[0x*?\-_.^ ]*)([-_^ ]*(anon[a-z]*|patient|name|id))*"
)


@dataclass(frozen=True)
class Evidence:
    """What is known of the person in a scan.

    Args:
        parts: the path below the source; without the file's name where that says nothing, as in
            DICOM.
        has_file_name: whether the last part is a file's name.
        source: names the source; paths are only compared with care between sources.
        patient_id: of DICOM, "" if there is none.
        name_and_birth: likewise, ("", "") if there is none.
        study: the StudyInstanceUID, "" if there is none.
    """

    parts: tuple[str, ...]
    has_file_name: bool = True
    source: Hashable = ""
    patient_id: str = ""
    name_and_birth: tuple[str, str] = ("", "")
    study: str = ""


@dataclass(frozen=True)
class People:
    """The persons of some scans.

    Args:
        of: a name for the person of each scan, for comparison only.
        how: by what each was found.
    """

    of: tuple[str, ...]
    how: tuple[str, ...]

    def sentence(self, scans: Sequence[int]) -> str:
        """How many people the scans with these numbers show, and how they were found."""
        first_how = {}
        for k in scans:
            first_how.setdefault(self.of[k], self.how[k])
        ways = Counter(first_how.values())

        found = ", ".join(f"{count} by {how}" for how, count in ways.most_common())
        if len(ways) == 1:
            found = f"by {next(iter(ways))}"
        return f"{people_in_words(len(first_how))} found: {found}; --person REGEX to change"


def people_in_words(number: int) -> str:
    """ "1 person", "2 people"."""
    return f"{number} {'person' if number == 1 else 'people'}"


def find_people(scans: Sequence[Evidence], pattern: str | None = None) -> People:
    """Tell whom each scan shows, by the rule above.

    Args:
        scans: what is known of each.
        pattern: a regular expression that finds the person in the path below the source.

    Raises:
        ValueError: the pattern is none, or matches no part of a path.
    """
    if pattern is not None:
        names = [_matched(pattern, scan.parts) for scan in scans]
        return People(tuple(names), ("--person",) * len(scans))

    identities = _identities(scans)
    places = [_place(scan) for scan in scans]
    studies = {scan.study for scan in scans}

    # A name in a path helps where DICOM does not tell the person, if nobody else has it.
    needed = {place[:2] for place, identity in zip(places, identities) if not identity}
    owners = defaultdict(set)
    for scan, place, identity in zip(scans, places, identities):
        owners[scan.source, place[:2]].add(identity)

    keys, how = [], []
    for scan, (site, label, way), identity in zip(scans, places, identities):
        own = [("", identity) if identity else (site, label)]
        is_owner = owners[scan.source, (site, label)] == {identity}
        if identity and label and is_owner and (site, label) in needed:
            own.append((site, label))
        if scan.study and len(studies) > 1:
            own.append((LINK, scan.study))
        keys.append(own)

        if identity:
            way = "PatientID"
        elif not is_anonymous(scan.patient_id):
            way = f"{way}, because all PatientIDs are equal"
        how.append(way)
    return People(tuple(merged(keys)), tuple(how))


def _matched(pattern: str, parts: Sequence[str]) -> str:
    path = "/".join(parts)
    try:
        match = re.search(pattern, path)
    except re.error as error:
        raise ValueError(f"--person {pattern} must be a regular expression ({error})") from None
    text = match and (match[1] if match.re.groups else match[0])
    if not text:
        raise ValueError(
            f"--person {pattern} matches nothing in {path}: change it, or leave it out"
        )
    return text


def _identities(scans: Sequence[Evidence]) -> list[str]:
    """What the DICOM tags say of each person, "" where they say nothing."""
    found = []
    for scan in scans:
        name, birth = scan.name_and_birth
        if not is_anonymous(scan.patient_id):
            found.append(normal(scan.patient_id))
        elif not is_anonymous(name):
            found.append(f"{normal(name)} {birth}")
        else:
            found.append("")

    for source in {scan.source for scan in scans}:
        own = [k for k, scan in enumerate(scans) if scan.source == source and found[k]]
        if _tell_nothing([scans[k] for k in own], {found[k] for k in own}):
            for k in own:
                found[k] = ""
    return found


def _tell_nothing(scans: Sequence[Evidence], identities: set[str]) -> bool:
    """Whether scans in several folders have one id, and no tag proves that it is one person."""
    persons = {scan.name_and_birth for scan in scans}
    is_certain = len(persons) == 1 and all(
        birth and not is_anonymous(name) for name, birth in persons
    )
    several_places = len({scan.parts for scan in scans}) > 1
    return len(identities) == 1 and several_places and not is_certain


def is_anonymous(text: str) -> bool:
    """Whether an id or a name is one that anonymisers write for everybody; "" is."""
    return ANONYMOUS.fullmatch(text.strip()) is not None


def _place(scan: Evidence) -> tuple[str, str, str]:
    """The site and the person that a path names, "" if none, and whether a folder or a file did."""
    site, candidates = "", []
    for k, part in enumerate(scan.parts):
        is_file = scan.has_file_name and k == len(scan.parts) - 1
        way = "file name" if is_file else "folder"
        text = stem(part) if is_file else part

        known = KNOWN_NAMES.search(text)
        if known:
            return site, normal(known[0]), way
        if not is_file and SITE.match(text):
            site = normal(text)
        elif is_file or not GROUP.match(text):
            label = person_in(text)
            if label:
                is_year = not is_file and YEAR.fullmatch(label) is not None
                candidates.append((not PERSON_LIKE.match(text), is_year, k, label, way))

    if not candidates:
        return site, "", "nothing in their paths"
    *_, label, way = min(candidates)
    return site, label, way


def person_in(text: str) -> str:
    """What a folder or a file without ending is called, without the words on the scan."""
    text = COPY.sub("", text)
    if UID.match(text):
        return text

    kept, before = [], ""
    for word in words_of(DATE.sub(" ", text)):
        counts_scans = word.isdigit() and COUNTED_WORD.fullmatch(before)
        before = word
        if counts_scans:
            continue

        has_number = _has_digit(kept)
        numbered = NUMBERED_MODALITY.fullmatch(word)
        if SCAN_WORD.fullmatch(word) or (numbered and has_number):
            if has_number:
                break
        elif has_number and SCAN_WORD_BEHIND.fullmatch(word):
            break
        else:
            kept.append(numbered[1] if numbered else word)

    if _has_digit(kept[:-1]) and CHANNEL.fullmatch(kept[-1]):
        kept.pop()
    return normal(" ".join(kept))


def _has_digit(words: Sequence[str]) -> bool:
    return any(character.isdigit() for word in words for character in word)


def normal(text: str) -> str:
    """A name without capitals, separators and leading zeros: "Patient_007" is "patient-7"."""
    text = unicodedata.normalize("NFKC", text).casefold()
    runs = re.findall(r"[^\W\d_]+|\d+", text)
    return "-".join(run.lstrip("0") or "0" if run.isdigit() else run for run in runs)


def merged(keys: Sequence[Sequence[Hashable]]) -> list[str]:
    """One name a scan, the same for scans that share a key, directly or through others.

    Args:
        keys: for each scan pairs of a site ("" if unknown) and a name, the scan's own first, or of
            `LINK` and anything that only scans of one person share.
    """
    persons = DisjointSet(key for own in keys for key in own)
    for own in keys:
        for other in own:
            persons.merge(own[0], other)

    # Without a site, a name may be that of anyone so called.
    for site, label in persons:
        if site and site != LINK and ("", label) in persons:
            persons.merge((site, label), ("", label))

    name_of = {}
    for person in persons.subsets():
        smallest = min(key for key in person if key[0] != LINK)
        name_of |= dict.fromkeys(person, " ".join(smallest).strip())
    return [name_of[own[0]] for own in keys]
