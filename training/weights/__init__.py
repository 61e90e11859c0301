"""Optional: weights of other programs into a network of this project, and out of it again.

import_weights.py  the command: makes a checkpoint of a file, and compares outputs with its source's
names.py           the names of another program's parts, and what they are called here
layouts.py         the order of an array's axes, there and here
mapping.py         which array of a file is which parameter; values are computed when needed
rows.py            the table of that, and what may be meant by names that are left over

A file of networks may say how others name their parts, as a dict that is called NAMES. It counts
for networks of other files that call these, too:

    NAMES = {
        "torchvision": {
            "conv1": "stem/conv",
            "layer*.*.conv1": "stage*/block*/conv1",
            "fc": "head",
        },
        "timm": {
            "blocks.*.attn.qkv": "block*/a/query + block*/a/key + block*/a/value",
            "blocks.*.attn.proj": "block*/a/output",
            "pos_embed": "position",
        },
    }

On the left is the path of a part or an array there, on the right its path in the params; what is
below a part goes with it. The first that fits counts; what none fits keeps its name.

- `*` stands for any letters of one name, and on the right for the same letters, in order. `**/` at
  the beginning stands for any names before, or none.
- `a + b + c` on the right: equal shares of the last axis (fused queries, keys and values); on the
  left: what is joined along it.
- `:as-is` at the end of the right says that matrices are stored as (inputs, outputs), as GPT-2's;
  `:transposed`, as (outputs, inputs). It is needed where neither shape nor name tells.
- None on the right: the array is not needed, such as a buffer with a mask. `:optional` at its end:
  it is not needed where the network has no such part.
- A file whose parts are below another (`module.`, `backbone.`), or a network that has such a part
  (`encoder`), needs no names for that: the part that has most of the names is found.

The names within a layer are known: weight, bias, running_mean and running_var of PyTorch, gamma,
beta, moving_mean and moving_variance of Keras, kernel, scale and embedding of Flax;
num_batches_tracked is not needed. `in_proj_weight` is `in_proj.weight`.
`training.checkpoint.rename` is such a dict, too.
"""
