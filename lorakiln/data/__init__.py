"""From files on disk to batches of latents: buckets, caches, the list of pictures, the order of visits."""
