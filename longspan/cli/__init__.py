"""The command line: one file per verb. Nothing here imports torch until a verb needs it, so that help is quick.

main       the entry point: the verbs, and what an error becomes
options    options that several verbs share, checked before a model is loaded
texts      prompts, files and standard input as text
answers    read once, answer each question
say        numbers for people, JSON for programs, warnings
evaluate   one verb for each suite of `longspan.evals`
bench      speed and memory, measured by `longspan.bench`
plans      its contexts and plans, as they are written
run, chat, demo, doctor, model    the other verbs
"""
