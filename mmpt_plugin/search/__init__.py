"""Write the embeddings of videos and sentences to files."""
