"""The command line: one file per verb. Nothing here imports torch until a verb needs it, so that help is quick.

main       the entry point: the verbs, and what an error becomes
options    options that several verbs share, checked before a model is loaded
texts      prompts, files and standard input as text
prompts    a text and its questions as token ids, the text's part the same for all
answers    read once, answer each question
say        numbers for people, JSON for programs, warnings
run, chat, demo, doctor, model    the verbs
"""
