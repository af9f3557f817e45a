"""From a teacher and a folder of images to a folder of saliency maps."""
