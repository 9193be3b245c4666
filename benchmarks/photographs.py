"""The whole job: 500 JPEGs of 512×384 to normalised float32 batches (50, 3, 224, 224), with no augmentation.

Decode, resize the shorter side to 256, cut 224×224 out of the centre, (x / 255 - mean) / std. Everybody has the same
number of workers. OpenCV's and albumentations' resize without antialias, which is what their users get, does less
work than Pillow's; with INTER_AREA it does about the same.
"""

from harness import LIMIT, OURS, PART, PEER, Case, WrongResult, options, run, size, threads  # isort: split

import numpy as np
from corpus import photographs
from PIL import Image

import gpucompute as gp

BATCH = 50
FEW = 5  # photographs in a call: alone, each of half a millisecond would be shared out among the threads once more
RESIZE, CROP = 256, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE, SHIFT = 1 / (255 * np.array(STD)), -np.array(MEAN) / np.array(STD)
COUNT = size(500)
paths = photographs(COUNT)


def resize_and_crop(image):
    width, height = image.size
    short = min(width, height)
    width, height = int(RESIZE * width / short), int(RESIZE * height / short)
    left, upper = round((width - CROP) / 2), round((height - CROP) / 2)
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, upper, left + CROP, upper + CROP))


def normalise_into(out, pixels):
    for channel in range(3):
        np.multiply(pixels[..., channel], np.float32(SCALE[channel]), out=out[channel])
        out[channel] += np.float32(SHIFT[channel])


def pillow(path):
    with Image.open(path) as image:
        return np.asarray(resize_and_crop(image.convert("RGB")))


def _reference():
    first = np.stack([pillow(path) for path in paths[:4]])
    return ((first / 255 - MEAN) / STD).transpose(0, 3, 1, 2)


reference = _reference()


def check(result):
    """`result` is the number of photographs and the first four of the first batch."""
    count, found = result
    found = np.asarray(found)
    if count != COUNT or found.shape != reference.shape or found.dtype != np.float32:
        raise WrongResult(f"{count} photographs, {found.dtype} {found.shape}; expected {COUNT}, {reference.shape}")
    return float(np.abs(found - reference).max())


# The peers' resizes differ from Pillow's by up to their whole range at edges; who agrees shows in the table.
case = Case(f"whole job: {COUNT} JPEGs → normalised batches of {BATCH}", check, tolerance=5.0)
case.target("gpucompute", ("Pillow", "OpenCV", "torch DataLoader", "albumentations"))


def consume(batches):
    """Walk through the batches as a training loop does: each is dropped before the next is asked for."""
    count, first = 0, None
    for batch in batches:
        if tuple(batch.shape[1:]) != (3, CROP, CROP) or "float32" not in str(batch.dtype):
            raise WrongResult(f"a batch of {batch.dtype} {tuple(batch.shape)}")
        if first is None:
            first = np.asarray(batch[:4]).copy()
        count += len(batch)
        del batch
    return count, first


def by_threads(one):
    """Return a contender that gives `one(path)`, uint8 pixels, to a pool of threads."""
    pool = threads()

    def into(out, path):
        normalise_into(out, one(path))

    def batches():
        for start in range(0, COUNT, BATCH):
            part = paths[start : start + BATCH]
            out = np.empty((len(part), 3, CROP, CROP), np.float32)
            list(pool.map(into, out, part))
            yield out

    return lambda: consume(batches())


@case.add("gpucompute", OURS)
def _():
    """Each thread decodes a few photographs and takes them all the way while their pixels are in the cache."""
    from gpucompute.data.decode import codecs, open_picture

    chain = gp.image.Compose([gp.image.Resize(RESIZE), gp.image.CenterCrop(CROP), gp.image.Normalize(MEAN, STD)])
    pool = threads()

    def into(out, few):
        chain([open_picture(path.read_bytes()).load() for path in few], out=out)

    def begin(start):
        part = paths[start : start + BATCH]
        out = gp.memory.empty((len(part), 3, CROP, CROP), np.float32)
        pieces = [slice(i, i + FEW) for i in range(0, len(part), FEW)]
        return out, [pool.submit(into, out[piece], part[piece]) for piece in pieces]

    def batches():
        with codecs():
            following = begin(0)
            for start in range(BATCH, COUNT + BATCH, BATCH):
                out, futures = following
                following = begin(start) if start < COUNT else None  # nobody waits for a batch's last photograph
                for future in futures:
                    future.result()
                yield out
                del out  # so that the pool of memory can give it out again

    return lambda: consume(batches())


@case.add("Pillow, threads", PEER)
def _():
    return by_threads(pillow)


def opencv(cv2, interpolation):
    cv2.setNumThreads(1)  # the threads are ours, one photograph each

    def one(path):
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        height, width = pixels.shape[:2]
        short = min(width, height)
        width, height = int(RESIZE * width / short), int(RESIZE * height / short)
        left, upper = round((width - CROP) / 2), round((height - CROP) / 2)
        pixels = cv2.resize(pixels, (width, height), interpolation=interpolation)
        return pixels[upper : upper + CROP, left : left + CROP]

    return one


@case.add("OpenCV INTER_LINEAR (no antialias), threads", PEER, needs="cv2")
def _(cv2):
    return by_threads(opencv(cv2, cv2.INTER_LINEAR))


@case.add("OpenCV INTER_AREA, threads", PEER, needs="cv2")
def _(cv2):
    return by_threads(opencv(cv2, cv2.INTER_AREA))


def by_loader(torch, one):
    """Return a contender for a DataLoader whose processes stay from call to call."""

    class Photographs(torch.utils.data.Dataset):
        def __len__(self):
            return COUNT

        def __getitem__(self, index):
            return one(paths[index])

    # Forked, as the script's classes cannot be pickled; started before any thread of torch runs.
    loader = torch.utils.data.DataLoader(
        Photographs(), batch_size=BATCH, num_workers=options.threads, persistent_workers=True
    )
    return lambda: consume(loader)


@case.add("torch DataLoader, Pillow + NumPy", PEER, needs="torch torch.utils.data")
def _(torch, data):
    def one(path):
        out = np.empty((3, CROP, CROP), np.float32)
        normalise_into(out, pillow(path))
        return torch.from_numpy(out)

    return by_loader(torch, one)


def torchvision_transforms(torch):
    """Import torchvision's transforms, beside a build of torch that its compiled part does not fit, too.

    The transforms are Python; only the operators that the import looks for must be declared.
    """
    try:
        from torchvision.transforms import v2
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        names = "nms qnms roi_align qroi_align ps_roi_align roi_pool ps_roi_pool deform_conv2d"
        for name in names.split():
            for operator in (name, f"_{name}_backward"):
                library.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
        torchvision_transforms.library = library  # what it declares goes with it
        from torchvision.transforms import v2
    return v2


@case.add("torch DataLoader, torchvision on PIL", PEER, needs="torch torch.utils.data")
def _(torch, data):
    v2 = torchvision_transforms(torch)
    chain = v2.Compose([
        v2.Resize(RESIZE, antialias=True), v2.CenterCrop(CROP), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ])  # fmt: skip

    def one(path):
        with Image.open(path) as image:
            return chain(image.convert("RGB")).as_subclass(torch.Tensor)

    return by_loader(torch, one)


@case.add("torch DataLoader, OpenCV decode, torchvision on uint8 tensors", PEER, needs="torch torch.utils.data cv2")
def _(torch, data, cv2):
    v2 = torchvision_transforms(torch)
    chain = v2.Compose([
        v2.Resize(RESIZE, antialias=True), v2.CenterCrop(CROP), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ])  # fmt: skip

    def one(path):
        return chain(torch.from_numpy(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)).permute(2, 0, 1))

    return by_loader(torch, one)


@case.add("albumentations + OpenCV in a torch DataLoader", PEER, needs="torch torch.utils.data cv2 albumentations")
def _(torch, data, cv2, albumentations):
    chain = albumentations.Compose([
        albumentations.SmallestMaxSize(RESIZE), albumentations.CenterCrop(CROP, CROP),
        albumentations.Normalize(MEAN, STD),
    ])  # fmt: skip

    def one(path):
        made = chain(image=cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))["image"]
        return torch.from_numpy(np.ascontiguousarray(made.transpose(2, 0, 1)))

    return by_loader(torch, one)


def decoding(one):
    pool = threads()

    def call():
        for _ in pool.map(one, paths):
            pass

    return call


@case.add("decode alone: Pillow", PART)
def _():
    def one(path):
        with Image.open(path) as image:
            np.asarray(image.convert("RGB"))

    return decoding(one)


@case.add("decode alone: OpenCV", PART, needs="cv2")
def _(cv2):
    cv2.setNumThreads(1)
    return decoding(lambda path: cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))


@case.add("decode alone: simplejpeg, fast and less exact", PART, needs="simplejpeg")
def _(simplejpeg):
    return decoding(lambda path: simplejpeg.decode_jpeg(path.read_bytes(), fastdct=True, fastupsample=True))


@case.add("limit: decode alone, simplejpeg, Pillow's bytes", LIMIT, needs="simplejpeg")
def _(simplejpeg):
    return decoding(lambda path: simplejpeg.decode_jpeg(path.read_bytes()))


if __name__ == "__main__":
    run(case)
