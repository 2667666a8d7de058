"""What is assumed about tumours, treatment and images: the complete list of scientific assumptions."""
