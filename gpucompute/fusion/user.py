def compiled(f): raise NotImplementedError
