"""Images: files, arrays, decoding, augmentation."""
