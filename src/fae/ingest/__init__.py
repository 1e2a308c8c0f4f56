"""The first stage: a raw click log becomes the columnar log."""
