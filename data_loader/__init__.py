"""Where examples come from: data sets, loaders, and transforms that run on the device."""
