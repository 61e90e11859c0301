"""The forms that `model.modules.operators` chooses from: one file for each kind of operator."""
