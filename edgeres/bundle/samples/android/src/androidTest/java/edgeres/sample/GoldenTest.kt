// An instrumented test (androidTest): does LiteRT on this phone give the bundle's golden outputs?
// The app's assets have model/ and golden/; README.md has the commands.
package edgeres.sample

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import org.tensorflow.lite.Interpreter
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs

@RunWith(AndroidJUnit4::class)
class GoldenTest {
    private val assets = InstrumentationRegistry.getInstrumentation().targetContext.assets

    private fun bytes(name: String): ByteBuffer =
        assets.open(name).use { it.readBytes() }.let { content ->
            ByteBuffer.allocateDirect(content.size).order(ByteOrder.nativeOrder())
                .apply { put(content); rewind() }
        }

    private fun values(buffer: ByteBuffer, dtype: String, count: Int) = FloatArray(count) {
        when (dtype) {
            "int8" -> buffer.get().toFloat()
            "uint8" -> (buffer.get().toInt() and 255).toFloat()
            "int16" -> buffer.getShort().toFloat()
            else -> buffer.getFloat()
        }
    }

    @Test
    fun outputsAreGolden() {
        val golden = JSONObject(String(assets.open("golden/golden.json").use { it.readBytes() }))
        val output = golden.getJSONObject("output")
        val dtype = output.getString("dtype")
        val classes = output.getJSONArray("shape").getInt(0)
        val samples = golden.getInt("samples")
        val inputs = bytes("golden/inputs.bin")
        val expected = bytes("golden/outputs.bin")
        val inputBytes = inputs.capacity() / samples
        val outputBytes = expected.capacity() / samples
        Interpreter(bytes(golden.getString("model"))).use { model ->
            for (i in 0 until samples) {
                inputs.limit((i + 1) * inputBytes)
                inputs.position(i * inputBytes)
                val found = ByteBuffer.allocateDirect(outputBytes).order(ByteOrder.nativeOrder())
                model.run(inputs.slice().order(ByteOrder.nativeOrder()), found)
                found.rewind()
                val mine = values(found, dtype, classes)
                val theirs = values(expected, dtype, classes)
                for (c in 0 until classes) {
                    assertTrue("sample $i, class $c: ${mine[c]} for ${theirs[c]}",
                        abs(mine[c] - theirs[c]) <= golden.getDouble("tolerance"))
                }
                assertEquals(theirs.indices.maxBy { theirs[it] }, mine.indices.maxBy { mine[it] })
            }
        }
    }
}
