"""What an API node keeps of images that lie elsewhere, so that it need not fetch them again."""
