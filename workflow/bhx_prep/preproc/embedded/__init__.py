"""Preprocessing without containers: a short nipype workflow on ANTs. Not a replacement for fMRIPrep."""
