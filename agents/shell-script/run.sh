#!/bin/sh
# Asks for one shell command at a time and runs it, until the model says DONE. agents/README.md explains the variables.
set -u

end() {
    jq -n --arg status "$1" --arg message "$2" '{status: $status, message: $message}' > "$HARNESS_RESULT_FILE"
    exit
}

say() { # ROLE, what was said on standard input: it is added to the conversation
    jq --raw-input --slurp --arg role "$1" '{role: $role, content: .}' >> "$talk"
}

talk=$(mktemp) # one message a line
say system << 'END'
You repair the software in the current directory. Answer with one shell command in a block:

```sh
ls
```

You are then shown what it printed. When the repair is complete, answer with the single word DONE.
END
say user < "$HARNESS_INSTRUCTION_FILE"

misses=0
call=0
while [ "$call" -lt "$HARNESS_MAX_CALLS" ]; do
    call=$((call + 1))
    answer=$(jq --slurp --arg model "$HARNESS_MODEL" '{model: $model, messages: .}' "$talk" |
        curl --silent --show-error --fail --header "Authorization: Bearer $OPENAI_API_KEY" \
            --header "Content-Type: application/json" --data @- "$OPENAI_BASE_URL/chat/completions") ||
        end error "curl ended with exit code $?"
    content=$(printf '%s' "$answer" | jq --raw-output '.choices[0].message.content // ""')
    printf '%s' "$content" | say assistant
    command=$(printf '%s\n' "$content" | sed -n '/^```sh$/,/^```$/{/^```/!p}')
    if [ -n "$command" ]; then
        misses=0
        sh -c "$command" 2>&1 < /dev/null | tail -c 8000 | say user
    elif [ "$content" = DONE ]; then
        end submitted "the model says that it is done"
    else
        misses=$((misses + 1))
        [ "$misses" -lt 3 ] || end format_failure "3 answers in a row had no command"
        echo "Answer with one block that begins with \`\`\`sh, or with DONE." | say user
    fi
done
end limit "all calls were used"
