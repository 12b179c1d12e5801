"""Virtual machine monitors behind one small interface (`base`), one folder each."""
