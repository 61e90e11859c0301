"""The library of augmentations for `data_loader.augment`; docs/transforms.md lists them.

geometric.py   flips, shifts, crops, rotation: masks, boxes and points move with the picture
colour.py      brightness, contrast, saturation, hue, erased rectangles, RandAugment
mixing.py      mixup and cutmix: targets become probabilities
moving.py      what the geometric ones share: moving pictures, masks, boxes and points
views.py       views of a picture for `test.py --tta`
"""
